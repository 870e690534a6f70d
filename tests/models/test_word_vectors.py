"""WordVectors by the names of gensim: its own results, and what is wrong with a question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.models import Word2Vec, WordVectors

NAMES = ["king", "queen", "man", "woman", "breakfast", "lunch", "dinner", "cereal", "paris", "london", "tokyo", "zero"]
VECTORS = np.round(np.random.default_rng(20).standard_normal((12, 6)), 1).astype(np.float32)
WORDS = WordVectors(NAMES, VECTORS)

# What gensim 4.4.0 answers.
OF_GENSIM: list[tuple[dict[str, Any], list[tuple[str, float]]]] = [
    (
        {"positive": ["king", "woman"], "negative": ["man"], "topn": 3},
        [("tokyo", 0.5049464702606201), ("paris", 0.1250763088464737), ("london", 0.006273193284869194)],
    ),
    ({"positive": "paris", "topn": 2}, [("queen", 0.5609410405158997), ("woman", 0.20024004578590393)]),
    (
        {"positive": [("king", 0.5), "queen"], "negative": [("man", 0.25)], "topn": 2},
        [("paris", 0.7069573998451233), ("woman", 0.6044983863830566)],
    ),
    (
        {"positive": [VECTORS[0] + VECTORS[1]], "topn": 2},
        [("paris", 0.6562278270721436), ("king", 0.5522295236587524)],
    ),
]


def assert_same(got: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [word for word, _ in got] == [word for word, _ in wanted]
    np.testing.assert_allclose([cosine for _, cosine in got], [cosine for _, cosine in wanted], atol=1e-6)


@pytest.mark.parametrize(("question", "answer"), OF_GENSIM)
def test_neighbours_are_those_that_gensim_finds(question: dict[str, Any], answer: list[tuple[str, float]]) -> None:
    assert_same(WORDS.most_similar(**question), answer)


def test_the_other_questions_have_the_answers_of_gensim() -> None:
    assert WORDS.doesnt_match(["breakfast", "lunch", "dinner", "cereal"]) == "breakfast"
    assert WORDS.doesnt_match(["king", "queen", "paris", "man"]) == "king"
    assert WORDS.similarity(w1="king", w2="queen") == pytest.approx(-0.5183572, abs=1e-6)
    assert WORDS.n_similarity(["king", "man"], ["queen", "woman", "paris"]) == pytest.approx(-0.0811526, abs=1e-6)
    assert WORDS.index_to_key == NAMES
    assert WORDS.key_to_index["woman"] == 3
    assert WORDS.index_to_key[WORDS.key_to_index["paris"]] == "paris"


def test_gensim_itself_answers_the_same() -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    theirs = models.KeyedVectors(6)
    theirs.add_vectors(NAMES, VECTORS)
    rng = np.random.default_rng(1)
    for _ in range(20):
        some = rng.choice(NAMES, 6, replace=False).tolist()
        question = {"positive": some[:3], "negative": some[3:5], "topn": 4}
        assert_same(WORDS.most_similar(**question), theirs.most_similar(**question))
        assert WORDS.doesnt_match(some) == theirs.doesnt_match(some)
        assert WORDS.n_similarity(some[:2], some[2:]) == pytest.approx(
            theirs.n_similarity(some[:2], some[2:]), abs=1e-6
        )


def test_a_model_answers_as_its_vectors_do() -> None:
    model = Word2Vec(12, 6, seed=0)
    model.vocabulary = NAMES
    model.vectors[...] = VECTORS
    assert model.most_similar("paris", 2) == WORDS.most_similar("paris", topn=2) == model.wv.most_similar(8, topn=2)
    question: dict[str, Any] = {"positive": ["king", "woman"], "negative": ["man"]}
    assert model.most_similar(**question, topn=3) == WORDS.most_similar(**question, topn=3)
    assert model.wv.doesnt_match(["king", "queen", "paris", "man"]) == "king"


def test_ids_stand_for_words_and_asked_words_are_no_answers() -> None:
    assert WORDS.most_similar([0, 3], [2]) == WORDS.most_similar(["king", "woman"], ["man"])
    assert not {"king", "woman", "man"} & {word for word, _ in WORDS.most_similar(["king", "woman"], "man", topn=12)}
    assert len(WORDS.most_similar(np.array(["king", "king"]), topn=12)) == 11
    assert len(WORDS.most_similar(VECTORS[:2], topn=20)) == 12
    assert WORDS.most_similar(("king", "woman"), topn=1) == WORDS.most_similar(["king", "woman"], topn=1)


@pytest.mark.parametrize(
    ("question", "error", "message"),
    [
        (("king", 5), TypeError, r"negative is the number 5, .* write topn=5, .* negative=\[5\]"),
        (("king", np.int64(5)), TypeError, "topn=5"),
        (("duke",), KeyError, "^'duke' is not in the vocabulary of 12 words$"),
        ((), ValueError, "there are neither positive nor negative words"),
        (([("king", np.nan)],), ValueError, "the weight of a word is nan, expected a finite number"),
        ((np.ones(5),), ValueError, r"a vector is float64 of shape \(5,\), expected floats of shape \(6,\)"),
        (("king", [], 2.5), TypeError, r"topn is float 2\.5, expected a whole number"),
        (([True],), TypeError, "word is bool True, expected a whole number"),
    ],
)
def test_questions_without_an_answer(question: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        WORDS.most_similar(*question)


def test_words_that_are_not_there_are_named_and_left_out() -> None:
    with pytest.warns(UserWarning, match="not in the vocabulary and left out: 'duke', 'earl'"):
        assert WORDS.doesnt_match(["duke", "king", "queen", "earl", "paris", "man"]) == "king"
    with pytest.warns(UserWarning, match="left out: 'duke'"):
        assert WORDS.n_similarity(["king", "duke"], ["queen"]) == WORDS.n_similarity(["king"], ["queen"])
    with pytest.raises(ValueError, match=r"none of words is in the vocabulary: \['duke'\]"):
        WORDS.doesnt_match(["duke"])
    with pytest.raises(ValueError, match="ws2 is empty"):
        WORDS.n_similarity(["king"], [])
    with pytest.raises(TypeError, match=r"words is the string 'king queen', .*'king queen'\.split\(\)"):
        WORDS.doesnt_match("king queen")
    for name in ("duke", "DUKE"):
        with pytest.raises(KeyError):
            WORDS[name]
        with pytest.raises(ValueError, match=f"{name}' is not in the vocabulary"):
            WORDS[name]


def test_a_repr_says_what_it_holds() -> None:
    shown = "'king', 'queen', 'man', 'woman', 'breakfast', ..."
    assert repr(WORDS) == f"WordVectors of 12 words, 6 numbers each, float32: {shown}"
    assert repr(WordVectors(["a"], np.ones((1, 2)))) == "WordVectors of 1 words, 2 numbers each, float64: 'a'"
