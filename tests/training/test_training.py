"""The training loop: Keras's meanings, callbacks, equal bits for equal seeds, stopping and going on, optimisers."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import callbacks, ops, optim
from fastlstm.contract import RowGrad
from fastlstm.models import RNNLM, Seq2seq
from fastlstm.tensor_file import read_tensor_file, write_tensor_file
from fastlstm.training import History, Trainer
from fastlstm.training.batches import ShuffledRows
from fastlstm.training.interrupt import SoftInterrupt

V, ROWS = 6, 50
RNG = np.random.default_rng(0)
XS = RNG.integers(1, V, (ROWS, 4))
TS = np.concatenate((np.zeros((ROWS, 1), np.int64), XS[:, ::-1][:, :3]), axis=1)  # say the source backwards


def make(seed: int = 0, **options: Any) -> Seq2seq:
    return Seq2seq(V, 8, 16, seed=seed, **options)


def fit(model: Seq2seq, epochs: int = 3, **options: Any) -> History:
    return model.fit(XS, TS, epochs=epochs, **{"batch_size": 16, "verbose": 0, **options})


def weights(model: Seq2seq) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


class Recorder(callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def on_train_begin(self) -> None:
        self.calls.append("train begin")

    def on_train_end(self) -> None:
        self.calls.append("train end")

    def on_epoch_begin(self, epoch: int) -> None:
        self.calls.append(f"epoch {epoch} begin")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.calls.append(f"epoch {epoch} end {' '.join(logs)}")

    def on_train_batch_begin(self, batch: int) -> None:
        self.calls.append(f"batch {batch} begin")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        self.calls.append(f"batch {batch} end {' '.join(logs)}")

    def on_interrupt(self) -> None:
        self.calls.append("interrupt")

    def close(self) -> None:
        self.calls.append("close")


# --------------------------------------------------------------------------------------------
# The loop
# --------------------------------------------------------------------------------------------


def test_a_model_learns() -> None:
    model = make()
    history = fit(model, epochs=60, optimizer=optim.Adam(lr=0.01), metrics=("loss", "accuracy"))
    assert history.history["loss"][-1] < 0.1 < 1.5 < history.history["loss"][0]
    assert history.history["accuracy"][-1] == 1.0
    np.testing.assert_array_equal(model.generate(XS, 0, 3), TS[:, 1:])


def test_history_has_an_entry_an_epoch() -> None:
    history = fit(make(), metrics=("loss", "token_accuracy"), validation_split=0.2)
    assert history.epoch == [0, 1, 2]
    assert {name: len(values) for name, values in history.history.items()} == dict.fromkeys(
        ("loss", "token_accuracy", "val_loss", "val_token_accuracy"), 3
    )


def test_one_epoch_is_forward_backward_update_over_the_rows_in_order() -> None:
    model, by_hand = make(), make()
    history = fit(model, epochs=1, shuffle=False, max_grad=0.1, optimizer="sgd")
    losses, counts = [], []
    for start in range(0, ROWS, 16):
        rows = slice(start, start + 16)
        losses.append(by_hand.forward(XS[rows], TS[rows]))
        counts.append(len(XS[rows]))
        by_hand.backward()
        grads = [grad.copy() for grad in by_hand.grads]
        ops.clip_grad_norm(grads, 0.1)
        ops.sgd_update(by_hand.params, grads, 0.01)
    for a, b in zip(model.params, by_hand.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert history.history["loss"] == [pytest.approx(np.average(losses, weights=counts))]


def test_shuffling_takes_every_row_once_an_epoch_and_changes_the_order() -> None:
    seen: list[Any] = []

    class Spy(Seq2seq):
        def forward(self, xs: Any, ts: Any, *weights: Any, **options: Any) -> float:
            seen.append(xs)
            return super().forward(xs, ts, *weights, **options)

    Spy(V, 8, 16, seed=0).fit(XS, TS, epochs=2, batch_size=16, verbose=0)
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert [len(xs) for xs in seen] == [16, 16, 16, 2] * 2
    assert not np.array_equal(first, second)
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order, axis=0), np.sort(XS, axis=0))


def test_validation_split_takes_the_last_rows() -> None:
    split, given = make(), make()
    by_split = fit(split, validation_split=0.2).history
    by_data = given.fit(
        XS[:40], TS[:40], epochs=3, batch_size=16, verbose=0, validation_data=(XS[40:], TS[40:])
    ).history
    assert by_split == by_data
    assert by_split["val_loss"][-1] == split.evaluate(XS[40:], TS[40:])["loss"]
    with pytest.raises(ValueError, match="there are no rows to evaluate"):
        split.evaluate(XS[:0], TS[:0])


def test_callbacks_are_called_as_in_keras() -> None:
    recorder = Recorder()
    fit(make(), epochs=1, batch_size=32, callbacks=[recorder], metrics=("loss", "accuracy"), validation_split=0.1)
    assert recorder.calls == [
        "train begin",
        "epoch 0 begin",
        "batch 0 begin",
        "batch 0 end loss accuracy",
        "batch 1 begin",
        "batch 1 end loss accuracy",
        "epoch 0 end loss accuracy val_loss val_accuracy",
        "train end",
        "close",
    ]


def test_one_hot_targets_are_accepted() -> None:
    with_ids, with_one_hot = make(), make()
    fit(with_ids)
    with_one_hot.fit(XS, np.eye(V)[TS], epochs=3, batch_size=16, verbose=0)
    assert weights(with_ids) == weights(with_one_hot)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"optimizer": "best"}, "unknown optimizer 'best'; expected one of sgd, momentum"),
        ({"max_grad": 0}, "max_grad is 0"),
        ({"validation_split": 1.0}, "validation_split is 1.0"),
        ({"metrics": ("speed",)}, "unknown metric 'speed'"),
        ({"verbose": 3}, "verbose is 3"),
        ({"validation_split": 0.001}, "validation_split is 0.001, which holds out none of"),
        ({"validation_data": (XS[:0], TS[:0])}, "validation_data has no rows"),
        ({"validation_data": (XS,)}, r"validation_data has 1 entries, expected \(xs, ts\)"),
        ({"validation_data": XS}, r"validation_data is an array .*expected \(xs, ts\)"),
        ({"callbacks": 3}, "callbacks is int 3, expected a sequence"),
        (
            {"callbacks": [callbacks.TerminateOnNaN]},
            r"callbacks\[0\] is type .*expected an object of",
        ),
        ({"xs": np.vstack([XS[:-1], np.full_like(XS[:1], 99)])}, "xs holds 99, expected 0 to"),
        ({"ts": np.vstack([TS[:-1], np.full_like(TS[:1], -2)])}, "ts holds -2, expected 0 to .*or -1 to ignore it"),
        ({"xs": XS[:0], "ts": TS[:0]}, "there are no rows to train on"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    model = make()
    before = weights(model)
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        model.fit(**{"xs": XS, "ts": TS, "epochs": 1, "batch_size": 16, "verbose": 0, **options})
    assert weights(model) == before


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make(), epochs=2, verbose=0)
    assert capsys.readouterr() == ("", "")
    fit(make(), epochs=2, verbose=2)
    out, err = capsys.readouterr()
    assert [line.split()[:3] for line in out.splitlines()] == [["epoch", "1/2", "loss"], ["epoch", "2/2", "loss"]]
    assert err == ""
    fit(make(), epochs=2, verbose=1)
    out, err = capsys.readouterr()
    assert [line.split()[:3] for line in out.splitlines()] == [["epoch", "1/2", "loss"], ["epoch", "2/2", "loss"]]
    last = err.split("\r")[-1]
    assert "epoch 2/2: 100%" in last
    assert "8/8" in last
    assert "loss " in last


# --------------------------------------------------------------------------------------------
# The same bits
# --------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bits_for_any_number_of_threads() -> None:
    results = []
    for threads in (1, 2, 3, 1):
        fastlstm.set_num_threads(threads)
        model = make(dropout=0.2, peeky=True, attention=True)
        history = fit(model, max_grad=1.0, metrics=("loss", "accuracy"), validation_split=0.2)
        results.append((weights(model), history.history))
    assert all(result == results[0] for result in results)
    other = make(seed=1, dropout=0.2, peeky=True, attention=True)
    fit(other, max_grad=1.0)
    assert weights(other) != results[0][0]


# --------------------------------------------------------------------------------------------
# Stopping and going on
# --------------------------------------------------------------------------------------------


def press_ctrl_c(at_epoch: int, at_batch: int, times: int = 1) -> callbacks.Callback:
    class CtrlC(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
            if (self.trainer.epoch, batch) == (at_epoch, at_batch):
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

    return CtrlC()


OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("epoch", "batch"), [(1, 1), (1, 2), (4, 2), (0, 0)])
def test_an_interrupted_training_goes_on_with_the_same_bits(
    optimizer: str, epoch: int, batch: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "epochs": 5,
        "optimizer": optimizer,
        "max_grad": 0.5,
        "metrics": ("loss", "accuracy"),
        "validation_split": 0.1,
    }
    whole, part, resumed = (make(dropout=0.3) for _ in range(3))
    wanted = fit(whole, callbacks=[callbacks.CSVLogger(tmp_path / "whole.csv")], **options)

    backup = tmp_path / "backup.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(
            part,
            callbacks=[
                callbacks.BackupAndRestore(backup),
                callbacks.CSVLogger(tmp_path / "part.csv"),
                press_ctrl_c(epoch, batch),
            ],
            **options,
        )
    assert backup.exists()
    assert weights(part) != weights(whole) or (epoch, batch) == (4, 2)
    history = fit(
        resumed, callbacks=[callbacks.CSVLogger(tmp_path / "part.csv"), callbacks.BackupAndRestore(backup)], **options
    )
    assert weights(resumed) == weights(whole)
    assert (history.epoch, history.history) == (wanted.epoch, wanted.history)
    assert (tmp_path / "part.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
    assert not backup.exists()


def test_callbacks_and_learning_rate_go_on_too(tmp_path: Path) -> None:
    backup = tmp_path / "backup.safetensors"

    def watchers() -> list[callbacks.Callback]:
        return [
            callbacks.LearningRateScheduler(lambda _, lr: 0.9 * lr),
            callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=0.1, cooldown=1),
            callbacks.EarlyStopping("loss", patience=3, min_delta=0.1, restore_best_weights=True),
        ]

    whole, part, resumed = make(), make(), make()
    wanted = fit(whole, epochs=12, callbacks=watchers())
    assert len(wanted.epoch) < 12
    with pytest.raises(KeyboardInterrupt):
        fit(part, epochs=12, callbacks=[*watchers(), callbacks.BackupAndRestore(backup), press_ctrl_c(3, 2)])
    optimizer = optim.Adam()
    history = fit(resumed, epochs=12, optimizer=optimizer, callbacks=[*watchers(), callbacks.BackupAndRestore(backup)])
    assert history.history == wanted.history
    assert weights(resumed) == weights(whole)


def test_a_kept_checkpoint_lets_a_finished_training_be_made_longer(tmp_path: Path) -> None:
    backup = tmp_path / "backup.safetensors"
    longer, whole = make(), make()
    for epochs in (2, 4):
        fit(longer, epochs=epochs, callbacks=[callbacks.BackupAndRestore(backup, delete_checkpoint=False)])
    history = fit(whole, epochs=4)
    assert weights(longer) == weights(whole)
    assert len(history.epoch) == 4
    assert backup.exists()


def test_a_crash_costs_the_epoch_at_hand_only(tmp_path: Path) -> None:
    backup = tmp_path / "backup.safetensors"

    def crash(batch: int, _: Mapping[str, float]) -> None:
        if batch == 2 and len(done) == 2:
            raise RuntimeError("out of luck")

    done: list[int] = []
    count = callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: done.append(epoch), on_train_batch_end=crash)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(make(), epochs=4, callbacks=[count, callbacks.BackupAndRestore(backup)])
    assert done == [0, 1]
    whole, resumed = make(), make()
    fit(whole, epochs=4)
    fit(resumed, epochs=4, callbacks=[callbacks.BackupAndRestore(backup)])
    assert weights(resumed) == weights(whole)


def test_ctrl_c_lets_the_batch_finish_and_leaves_the_handler_as_it_was() -> None:
    recorder, model = Recorder(), make()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[press_ctrl_c(1, 1), recorder])
    assert recorder.calls[-3:] == ["batch 1 end loss", "interrupt", "close"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fit(make(), callbacks=[press_ctrl_c(1, 1, times=2), recorder])
    assert recorder.calls[-2:] == ["batch 1 begin", "close"]


def test_another_handler_and_other_threads_are_left_alone() -> None:
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        fit(make(), callbacks=[press_ctrl_c(0, 0)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [1]

    installed = []

    def run() -> None:
        with SoftInterrupt():
            installed.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert installed == [before]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size was 16, now it is 8"),
        ({"optimizer": "sgd"}, "optimizer was Adam, now it is SGD"),
        ({"max_grad": 1.0}, "max_grad was None, now it is 1.0"),
        ({"validation_split": 0.1}, "crc32 of the training data was"),
        ({"callbacks": [callbacks.EarlyStopping("loss")]}, "was written with other callbacks; now they are Early"),
        ({"model": make(peeky=True)}, "options was"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(make(), callbacks=[callbacks.BackupAndRestore(backup), press_ctrl_c(0, 1)])
    content = backup.read_bytes()
    options = {"callbacks": [], **change}
    model = options.pop("model", make())
    options["callbacks"] = [*options["callbacks"], callbacks.BackupAndRestore(backup)]
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        fit(model, **options)
    assert weights(model) == before
    assert backup.read_bytes() == content


def test_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    with pytest.raises(ValueError, match="but no checkpoint"):
        fit(make(), callbacks=[callbacks.BackupAndRestore(path)])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cut short"):
        fit(make(), callbacks=[callbacks.BackupAndRestore(path)])


def test_what_begins_an_epoch_is_not_done_twice(tmp_path: Path) -> None:
    """Ctrl-C in the last batch of an epoch stops before the next one begins."""

    def decay() -> callbacks.Callback:
        return callbacks.LearningRateScheduler(lambda _, lr: 0.5 * lr)

    whole, part, resumed = make(), make(), make()
    fit(whole, callbacks=[decay()])
    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[decay(), backup, press_ctrl_c(0, 3)])
    fit(resumed, callbacks=[decay(), callbacks.BackupAndRestore(tmp_path / "backup")])
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize(("before", "now"), [({"validation_split": 0.1}, {}), ({}, {"validation_data": (XS, TS)})])
def test_validation_is_neither_added_nor_left_out(before: dict[str, Any], now: dict[str, Any], tmp_path: Path) -> None:
    """In any epoch but the first the history would have numbers for some epochs only."""
    rows = (XS[:45], TS[:45])

    def go_on(data: Any, epochs: int, **options: Any) -> History:
        backup = callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        log = callbacks.CSVLogger(tmp_path / "log.csv")
        return make().fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=[log, backup], **options)

    go_on((XS, TS) if before else rows, 2, **before)
    log, checkpoint = (tmp_path / "log.csv").read_bytes(), (tmp_path / "backup").read_bytes()
    with pytest.raises(ValueError, match="belongs to another training: its epochs have loss.*, now they have loss"):
        go_on(rows, 4, **now)
    assert (tmp_path / "log.csv").read_bytes() == log
    assert (tmp_path / "backup").read_bytes() == checkpoint
    assert len(go_on((XS, TS) if before else rows, 4, **before).epoch) == 4


def test_a_list_of_ones_own_in_the_history(tmp_path: Path) -> None:
    """One that is too short leaves its cells empty; it goes through a checkpoint."""

    def note(epoch: int, _: Mapping[str, float]) -> None:
        if epoch < 1:
            log.trainer.history.history.setdefault("note", []).append(0.5)

    for epochs in (2, 3):
        log = callbacks.CSVLogger(tmp_path / "log.csv")
        backup = callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        fit(make(), epochs, callbacks=[callbacks.LambdaCallback(on_epoch_end=note), log, backup])
    lines = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert [lines[0], *([line[0], line[2]] for line in lines[1:])] == [
        ["epoch", "loss", "note"],
        ["1", "0.5"],
        ["2", ""],
        ["3", ""],
    ]


NASTY: tuple[Any, ...] = (None, -1, 2.5, 10**30, float("nan"), "text", [1], {}, {"arrays": 10**12})


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of everything in a description of a checkpoint."""
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in inside:
        yield from leaves(entry, (*place, name))


def everything(model: Any, optimizer: optim.Optimizer, used: list[callbacks.Callback]) -> Any:
    """The state of a training, of which nothing may change."""
    numbers, arrays = optimizer.state()
    return (
        [param.tobytes() for param in model.params],
        [array.tobytes() for array in model.state()],
        model.rng.bit_generator.state,
        (numbers, {name: array.tobytes() for name, array in arrays.items()}),
        [{name: value for name, value in vars(one).items() if name not in ("model", "trainer")} for one in used],
    )


def test_a_forged_checkpoint_changes_nothing(tmp_path: Path) -> None:
    """Whatever stands in the file: it is refused as a whole, or it is a state that the training can have."""
    path = tmp_path / "backup"
    text = RNG.integers(0, V, 200)

    def start(used: list[callbacks.Callback], optimizer: optim.Optimizer, model: RNNLM) -> None:
        model.fit(
            text,
            epochs=3,
            time_size=5,
            batch_size=4,
            optimizer=optimizer,
            metrics=("accuracy",),
            validation_data=text,
            verbose=0,
            callbacks=used,
        )

    def watchers() -> list[callbacks.Callback]:
        return [
            callbacks.EarlyStopping(patience=9, restore_best_weights=True),
            callbacks.ReduceLROnPlateau(),
            callbacks.ModelCheckpoint(tmp_path / "best", save_best_only=True),
            callbacks.BackupAndRestore(path, delete_checkpoint=False),
        ]

    def small() -> RNNLM:
        return RNNLM(V, 3, 4, seed=0)

    with pytest.raises(KeyboardInterrupt):
        start([*watchers(), press_ctrl_c(1, 4)], optim.Adam(), small())
    tensors, description = read_tensor_file(path)
    assert description["batch"] == 5
    assert description["callbacks"][1]["state"]["best"] is not None

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    def attempt(tensors: dict[str, Any], description: Any) -> str | None:
        """What is said against a checkpoint, None if it is accepted."""
        write_tensor_file(path, tensors, description)
        used, optimizer, model = watchers(), optim.Adam(), small()
        before = everything(model, optimizer, used)
        at_once = callbacks.LambdaCallback()
        at_once.on_train_batch_begin = stop  # type: ignore[method-assign, assignment]
        at_once.on_train_end = stop  # type: ignore[method-assign]
        try:
            start([*used, at_once], optimizer, model)
        except ValueError as error:
            assert everything(model, optimizer, used) == before
            return str(error)
        except Stop:
            return None
        raise AssertionError("the training did not begin")

    assert attempt(tensors, description) is None
    refused = 0
    for place in leaves(description):
        for value in NASTY:
            forged = copy.deepcopy(description)
            target: Any = forged
            for name in place[:-1]:
                target = target[name]
            if place:
                target[place[-1]] = value
            refused += attempt(tensors, forged if place else value) is not None
    assert refused > 500
    for name in tensors:
        for wrong in (None, tensors[name][:-1].copy(), tensors[name].astype(np.float64)):
            others = {key: array for key, array in tensors.items() if key != name}
            assert attempt(others if wrong is None else {**others, name: wrong}, description) is not None

    state = description["callbacks"][3]["state"]
    for forged_state in ({**state, "filepath": str(tmp_path / "other")}, {}, {"filepath": "x"}):
        forged = copy.deepcopy(description)
        forged["callbacks"][3]["state"] = forged_state
        said = attempt(tensors, forged)
        assert said is not None
        assert "is damaged: ModelCheckpoint has" in said
    assert not (tmp_path / "other").exists()


# --------------------------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------------------------


class Played(callbacks.Callback):
    """Plays given numbers as an epoch's logs to another callback."""

    def __init__(self, other: callbacks.Callback, name: str, values: list[float]) -> None:
        super().__init__()
        self.other, self.name, self.values = other, name, values

    def on_train_begin(self) -> None:
        self.other.model, self.other.trainer = self.model, self.trainer
        self.other.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.other.on_epoch_end(epoch, {self.name: self.values[epoch]})

    def on_train_end(self) -> None:
        self.other.on_train_end()


@pytest.mark.parametrize(
    ("options", "values", "epochs"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.2, 1], 4),
        ({"patience": 0}, [3, 2, 2.5, 1], 3),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.8, 2.6], 2),
        ({"patience": 2, "start_from_epoch": 2}, [1, 2, 3, 4, 5, 6], 5),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 2, 2, 9], 5),
        ({"patience": 2, "baseline": 0.5}, [3, 2, 2.5, 1], 3),
        ({"patience": 2}, [float("nan")] * 4, 2),
    ],
)
def test_early_stopping(options: dict[str, Any], values: list[float], epochs: int) -> None:
    stopping = callbacks.EarlyStopping(**options)
    history = fit(make(), epochs=len(values), callbacks=[Played(stopping, "val_loss", values)])
    assert len(history.epoch) == epochs


def test_early_stopping_restores_the_best_weights() -> None:
    model, after_two = make(), make()
    stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    fit(model, epochs=9, callbacks=[Played(stopping, "val_loss", [3, 1, 2, 2, 2, 2, 2, 2, 2])])
    fit(after_two, epochs=2)
    assert weights(model) == weights(after_two)


def test_reduce_lr_on_plateau() -> None:
    rates: list[float] = []
    optimizer = optim.SGD(lr=1.0)
    plateau = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.2)
    fit(
        make(),
        epochs=9,
        optimizer=optimizer,
        callbacks=[
            Played(plateau, "val_loss", [3.0, 3, 3, 3, 3, 3, 3, 3, 3]),
            callbacks.LambdaCallback(on_epoch_end=lambda _, __: rates.append(optimizer.lr)),
        ],
    )
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_learning_rate_scheduler() -> None:
    optimizer = optim.SGD(lr=1.0)
    seen = []

    def schedule(epoch: int, lr: float) -> float:
        seen.append((epoch, lr))
        return lr / 2

    fit(make(), optimizer=optimizer, callbacks=[callbacks.LearningRateScheduler(schedule)])
    assert seen == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert optimizer.lr == 0.125


def test_model_checkpoint(tmp_path: Path) -> None:
    every = callbacks.ModelCheckpoint(tmp_path / "every-{epoch:02d}.safetensors", period=2)
    best = callbacks.ModelCheckpoint(tmp_path / "best-{epoch}-{val_loss:.1f}", save_best_only=True)
    highest = callbacks.ModelCheckpoint(tmp_path / "highest-{epoch}", "val_accuracy", save_best_only=True)
    model = make()
    fit(
        model,
        epochs=4,
        callbacks=[
            every,
            Played(best, "val_loss", [3, 4, 2, 2]),
            Played(highest, "val_accuracy", [0.1, 0.3, 0.2, 0.4]),
        ],
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "best-1-3.0",
        "best-3-2.0",
        "every-02.safetensors",
        "every-04.safetensors",
        "highest-1",
        "highest-2",
        "highest-4",
    ]
    assert weights(Seq2seq.load(tmp_path / "every-04.safetensors")) == weights(model)


def test_csv_logger(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    history = fit(make(), epochs=2, callbacks=[callbacks.CSVLogger(path)], validation_split=0.1).history
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,loss,val_loss"
    assert [line.split(",") for line in lines[1:]] == [
        [str(i + 1), repr(history["loss"][i]), repr(history["val_loss"][i])] for i in range(2)
    ]
    fit(make(), epochs=1, callbacks=[callbacks.CSVLogger(path, append=True)], validation_split=0.1)
    assert path.read_text().splitlines()[:4] == [*lines, lines[1]]
    fit(make(), epochs=1, callbacks=[callbacks.CSVLogger(path, separator=";")])
    assert path.read_text().splitlines()[0] == "epoch;loss"


def test_terminate_on_nan(capsys: pytest.CaptureFixture[str]) -> None:
    model = make()

    def break_weights(batch: int) -> None:
        if batch == 2:
            model.params[-1][0] = np.nan

    guard = callbacks.TerminateOnNaN()
    history = fit(model, callbacks=[callbacks.LambdaCallback(on_train_batch_begin=break_weights), guard])
    assert history.epoch == []  # the epoch was cut short
    assert guard.message == capsys.readouterr().err.strip()
    assert guard.message.startswith("the loss became nan in epoch 1, batch 3; training stopped")


@pytest.mark.parametrize(
    ("make_callback", "message"),
    [
        (callbacks.EarlyStopping, "EarlyStopping watches 'val_loss', but the training has only loss"),
        (callbacks.ReduceLROnPlateau, "ReduceLROnPlateau watches 'val_loss', but the training has only loss"),
        (lambda: callbacks.EarlyStopping("accuracy"), "EarlyStopping watches 'accuracy', but the training has only"),
        (lambda: callbacks.ModelCheckpoint("x", save_best_only=True), "ModelCheckpoint watches 'val_loss'"),
        (
            lambda: callbacks.ModelCheckpoint("{val_acc}"),
            r"'\{val_acc\}', but the training has only epoch, loss: no 'val_acc'",
        ),
        (lambda: callbacks.ModelCheckpoint("{0}"), "but the training has only epoch, loss"),
        (lambda: callbacks.ModelCheckpoint("{epoch"), "which is no format: expected '}'"),
        (lambda: callbacks.ModelCheckpoint("{loss:d}"), "which is no format: Unknown format code 'd'"),
        (lambda: callbacks.ModelCheckpoint("{loss[0]}"), "which is no format: 'float' object is not subscriptable"),
        (lambda: callbacks.ModelCheckpoint("file/x"), "file"),
        (lambda: callbacks.ModelCheckpoint("file/{epoch}"), "file"),
        (lambda: callbacks.ModelCheckpoint("folder"), "not a regular file: .*folder"),
        (lambda: callbacks.CSVLogger("file/x"), "file"),
        (lambda: callbacks.CSVLogger("folder"), "not a regular file: .*folder"),
        (lambda: callbacks.CSVLogger("x" * 300), "File name too long"),
        (lambda: callbacks.TensorBoard("file"), "file"),
        (lambda: callbacks.BackupAndRestore("file/x"), "file"),
        (lambda: callbacks.BackupAndRestore("folder"), "not a regular file: .*folder"),
    ],
)
def test_what_cannot_work_is_known_before_the_first_batch(
    make_callback: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    model, recorder = make(), Recorder()
    before = weights(model)
    with pytest.raises((ValueError, OSError), match=message):
        fit(model, callbacks=[make_callback(), recorder])
    assert weights(model) == before
    assert not [call for call in recorder.calls if call.startswith("epoch")]
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder"}


def test_folders_are_made_when_training_begins(tmp_path: Path) -> None:
    used = [
        callbacks.ModelCheckpoint(tmp_path / "models" / "all" / "{epoch}" / "model"),
        callbacks.ModelCheckpoint(tmp_path / "best" / "model", "loss", save_best_only=True),
        callbacks.CSVLogger(tmp_path / "csv" / "log.csv"),
        callbacks.TensorBoard(tmp_path / "board"),
        callbacks.BackupAndRestore(tmp_path / "backup" / "file"),
    ]
    fit(make(), epochs=0, callbacks=used)
    folders = {"models", "models/all", "best", "csv", "board", "board/train", "backup"}
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == folders
    fit(make(), epochs=2, callbacks=used)
    models = ["best/model", "models/all/1/model", "models/all/2/model"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("model")) == models


def test_callbacks_of_ones_own_may_add_to_the_logs(tmp_path: Path) -> None:
    """What comes after them can watch what they add."""

    def add(epoch: int, logs: Any) -> None:
        logs["f1"] = [0.5, 0.6, 0.4][epoch]

    best = callbacks.ModelCheckpoint(tmp_path / "{epoch}-{f1:.1f}", "f1", save_best_only=True, mode="max")
    adding = callbacks.LambdaCallback(on_epoch_end=add)
    fit(make(), callbacks=[adding, best])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0.5", "2-0.6"]
    with pytest.raises(ValueError, match="ModelCheckpoint watches 'f1', but the training has only loss"):
        fit(make(), callbacks=[best, adding])
    with pytest.raises(ValueError, match="EarlyStopping watches 'f2', but the training has only loss, f1"):
        fit(make(), callbacks=[adding, callbacks.EarlyStopping("f2")])


@pytest.mark.parametrize("worst", [float("inf"), float("nan")])
def test_what_has_diverged_is_never_the_best(worst: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("min", "max"):
        values = [worst, -worst, worst]
        kept = callbacks.ModelCheckpoint(tmp_path / "best", save_best_only=True, mode=mode)
        stopping = callbacks.EarlyStopping(patience=2, verbose=1, mode=mode)
        fit(make(), callbacks=[Played(kept, "val_loss", values), Played(stopping, "val_loss", values)])
        assert kept.best is None
        assert stopping.best is None
        assert not any(tmp_path.iterdir())
        assert capsys.readouterr().out == "epoch 2: val_loss was never a finite number; stopped\n"


@pytest.mark.parametrize(
    ("make_callback", "message"),
    [
        (lambda: callbacks.EarlyStopping(mode="best"), "mode is 'best'"),  # type: ignore[arg-type]
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), "factor is 1.0"),
        (lambda: callbacks.ModelCheckpoint("x", period=0), "period is 0"),
        (lambda: callbacks.BackupAndRestore("x", save_freq=0), "save_freq is 0"),
        (lambda: callbacks.CSVLogger("x", separator=", "), "separator is ', ', expected one character"),
        (lambda: callbacks.EarlyStopping(patience="3"), "patience is str '3', expected a number"),  # type: ignore[arg-type]
        (lambda: callbacks.EarlyStopping(baseline="low"), "baseline is str 'low', expected a number"),  # type: ignore[arg-type]
        (lambda: callbacks.ReduceLROnPlateau(min_lr=None), "min_lr is NoneType None, expected a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_options_of_callbacks(make_callback: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make_callback()


# --------------------------------------------------------------------------------------------
# Optimisers
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_its_operator_with_a_memory(name: str) -> None:
    rng = np.random.default_rng(1)
    params = [rng.standard_normal((4, 3)), rng.standard_normal(5)]
    wanted = [param.copy() for param in params]
    optimizer = optim.make_optimizer(name)
    operator = getattr(ops, f"{name}_update")
    slots = [[np.zeros_like(param) for param in params] for _ in optimizer.slot_names]
    for step in (1, 2, 3):
        grads = [rng.standard_normal(param.shape) for param in params]
        before = [grad.copy() for grad in grads]
        optimizer.update(params, grads, max_norm=0.5)
        assert all(np.array_equal(a, b) for a, b in zip(grads, before, strict=True))
        assert optim.clip_grads(grads, 0.5) > 0.5
        options: dict[str, Any] = {"step": step} if "adam" in name else {}
        if name == "adamw":
            options["weight_decay"] = 0.004
        operator(wanted, grads, *slots, optimizer.lr, **options)
    for got, want in zip(params, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_transposes(name: str) -> None:
    """Parameters and gradients in either order of memory, and a state that has been to a file and back."""
    rng = np.random.default_rng(1)
    turned, straight = np.asfortranarray(rng.standard_normal((4, 3))), rng.standard_normal((4, 3))
    params = [turned, straight]
    wanted = [np.array(param, order="C") for param in params]
    ours, theirs = optim.make_optimizer(name), optim.make_optimizer(name)
    for step in range(4):
        if step == 2:
            numbers, arrays = ours.state()
            ours = optim.make_optimizer(name)
            ours.set_state(numbers, {key: np.ascontiguousarray(array) for key, array in arrays.items()})
        grad = rng.standard_normal((4, 3))
        grads = [np.asfortranarray(grad), grad] if step % 2 else [grad, np.asfortranarray(grad)]
        ours.update(params, grads)
        theirs.update(wanted, [grad, grad])
    assert params[0] is turned
    assert params[1] is straight
    for got, want in zip(params, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


OTHER_HYPERPARAMETERS: dict[str, Callable[[], optim.Optimizer]] = {
    "momentum": lambda: optim.Momentum(0.1, momentum=0.5),
    "nesterov": lambda: optim.Nesterov(0.1, momentum=0.5),
    "adagrad": lambda: optim.AdaGrad(0.1, eps_inside_root=True),
    "rmsprop": lambda: optim.RMSprop(0.1, decay_rate=0.5),
    "adam": lambda: optim.Adam(0.1, beta1=0.5, beta2=0.7),
    "adamw": lambda: optim.AdamW(0.1, weight_decay=0.5),
}


@pytest.mark.parametrize("name", OTHER_HYPERPARAMETERS)
def test_the_state_of_an_optimizer_has_its_hyperparameters(name: str) -> None:
    first, grad = OTHER_HYPERPARAMETERS[name](), np.full(3, 1e-3)
    params = [np.ones(3)]
    first.update(params, [grad])
    second, copied = optim.make_optimizer(name), [params[0].copy()]
    second.set_state(*first.state())
    for optimizer, arrays in ((first, params), (second, copied)):
        optimizer.update(arrays, [grad])
    np.testing.assert_array_equal(copied[0], params[0])
    assert second.state()[0] == first.state()[0]


@pytest.mark.parametrize("name", OTHER_HYPERPARAMETERS)
def test_states_of_earlier_versions_have_no_hyperparameters(name: str) -> None:
    optimizer = OTHER_HYPERPARAMETERS[name]()
    numbers, arrays = optimizer.state()
    old = {key: numbers[key] for key in ("class", "lr", "step")}
    optimizer.set_state({**old, "lr": 0.2}, arrays)
    assert optimizer.state()[0] == {**numbers, "lr": 0.2}


def test_a_training_goes_on_with_the_hyperparameters_it_began_with(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    whole, part, resumed = make(), make(), make()
    fit(whole, epochs=3, optimizer=optim.AdaGrad(eps_inside_root=True))
    used = [callbacks.BackupAndRestore(backup), press_ctrl_c(1, 2)]
    with pytest.raises(KeyboardInterrupt):
        fit(part, epochs=3, optimizer=optim.AdaGrad(eps_inside_root=True), callbacks=used)
    fit(resumed, epochs=3, optimizer=optim.AdaGrad(), callbacks=[callbacks.BackupAndRestore(backup)])
    assert weights(resumed) == weights(whole)


def test_default_learning_rates_are_those_of_the_book() -> None:
    assert {name: optim.make_optimizer(name).lr for name in OPTIMIZERS} == {
        **dict.fromkeys(("sgd", "momentum", "nesterov", "adagrad", "rmsprop"), 0.01),
        **dict.fromkeys(("adam", "adamw"), 0.001),
    }


def test_optimizers_take_row_gradients() -> None:
    params = [np.ones((4, 2))]
    optim.SGD(lr=1.0).update(params, [RowGrad(np.array([1, 3]), np.full((2, 2), 0.5))])
    np.testing.assert_array_equal(params[0], [[1, 1], [0.5, 0.5], [1, 1], [0.5, 0.5]])


def test_an_update_that_fails_is_no_step() -> None:
    optimizer, params = optim.Adam(), [np.ones(3)]
    with pytest.raises(ValueError, match="shape"):
        optimizer.update(params, [np.ones(4)])
    assert optimizer.step == 0
    np.testing.assert_array_equal(params[0], 1)


@pytest.mark.parametrize("lr", [-1.0, float("nan"), float("inf")])
def test_bad_learning_rates(lr: float) -> None:
    optimizer = optim.SGD(lr=0.5)
    with pytest.raises(ValueError, match="expected a finite number, at least 0"):
        optim.SGD(lr=lr)
    with pytest.raises(ValueError, match="lr is .*, expected a finite number, at least 0"):
        optimizer.lr = lr
    assert optimizer.lr == 0.5


def test_the_trainer_says_how_far_it_is() -> None:
    trainer = Trainer(make(), ShuffledRows(XS, TS, 16, "cpu"), epochs=2, verbose=0)
    assert (trainer.epochs, trainer.batches, trainer.epoch, trainer.batch) == (2, 4, 0, 0)
    trainer.run()
    assert (trainer.epoch, trainer.batch) == (2, 0)
