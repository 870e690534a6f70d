import sys

sys.path.append("..")
from common.optimizer import Adam
from common.trainer import Trainer
from common.util import eval_seq2seq
from dataset import sequence
from seq2seq import Seq2seq

small = "small" in sys.argv
(x_train, t_train), (x_test, t_test) = sequence.load_data("addition.txt")
char_to_id, id_to_char = sequence.get_vocab()
model = Seq2seq(len(char_to_id), 16, 32 if small else 128)
trainer = Trainer(model, Adam())
for _ in range(2 if small else 6):
    trainer.fit(x_train, t_train, max_epoch=1, batch_size=128, max_grad=5.0, eval_interval=5)
    right = 0
    for i in range(len(x_test)):
        right += eval_seq2seq(model, x_test[[i]], t_test[[i]], id_to_char, i < 3)
    print(f"val acc {100 * right / len(x_test):.3f}%")
