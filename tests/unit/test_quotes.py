from typing import Any

from graph.quotes import MAX_SENTENCES, NOTHING_MORE, quote


def source(number: int, document: str, score: float) -> dict[str, Any]:
    return {"id": f"{document}#{number}", "title": f"{document} {number}", "url": "", "score": score, "text": ""}


def said(source: int, order: int, text: str, score: float) -> dict[str, Any]:
    return {"source": source, "order": order, "text": text, "score": score}


def test_sentences_stand_under_their_source_in_its_order_each_with_its_number() -> None:
    sources = [source(1, "Gout", 0.8), source(2, "Gout", 0.7)]
    evidence = [
        said(1, 0, "Gout hurts badly.", 0.7),
        said(1, 1, "Mostly in the big toe.", 0.8),
        said(2, 0, "Alcohol triggers attacks.", 0.75),
    ]
    assert quote("?", sources, evidence) == (
        "**Gout 1**\n\nGout hurts badly. [1] Mostly in the big toe. [1]\n\n**Gout 2**\n\nAlcohol triggers attacks. [2]"
    )


def test_another_document_is_quoted_only_when_it_fits_nearly_as_well() -> None:
    evidence = [said(1, 0, "Shingles is a rash.", 0.6), said(2, 0, "Eczema is not contagious.", 0.9)]
    assert "Eczema" not in quote("?", [source(1, "Shingles", 0.6), source(2, "Eczema", 0.5)], evidence)
    assert "Eczema" in quote("?", [source(1, "Shingles", 0.6), source(2, "Eczema", 0.59)], evidence)


def test_nothing_is_said_twice_and_not_too_much() -> None:
    texts = ["Children should not take aspirin.", "Children under 16 should not take aspirin."]
    texts += [f"Different{n} matter{n} entirely{n}." for n in range(9)]
    answer = quote("?", [source(1, "Aspirin", 0.8)], [said(1, n, text, 0.8) for n, text in enumerate(texts)])
    assert answer.count("aspirin") == 1
    assert answer.count("[1]") == MAX_SENTENCES


def test_a_sentence_that_leans_on_one_left_out_is_left_out_too() -> None:
    evidence = [
        said(1, 0, "Too much vitamin D causes nausea and thirst.", 0.1),
        said(1, 1, "See a doctor if you have such symptoms.", 0.8),
        said(1, 2, "Vitamin D is safe at normal doses.", 0.8),
    ]
    assert quote("?", [source(1, "D", 0.8)], evidence) == "**D 1**\n\nVitamin D is safe at normal doses. [1]"


def test_without_evidence_the_words_of_the_question_choose() -> None:
    only = {**source(1, "Iron", 0.5), "text": "Tea slows uptake. Tiredness is a symptom of iron deficiency."}
    answer = quote("symptoms of iron deficiency", [only], [])
    assert "Tiredness is a symptom of iron deficiency. [1]" in answer


FEVER = [source(1, "Fever", 0.8), source(2, "Influenza", 0.8)]
SAYS = [
    said(1, 0, "Rest and drink enough.", 0.9),
    said(1, 1, "A baby with a fever needs help at once.", 0.5),
    said(2, 0, "Children with flu should not have aspirin.", 0.9),
]
BEFORE = quote("What helps with a fever?", FEVER[:1], SAYS[:1])


def test_a_follow_up_about_children_quotes_what_the_same_article_says_of_them() -> None:
    answer = quote("What helps with a fever? and for kids?", FEVER, SAYS, "and for kids?", BEFORE)
    assert answer == "**Fever 1**\n\nA baby with a fever needs help at once. [1]"


def test_when_the_article_says_nothing_of_them_no_other_article_does() -> None:
    assert quote("a fever? and in pregnancy?", FEVER, SAYS, "and in pregnancy?", BEFORE) == NOTHING_MORE
    assert quote("a fever? and for men?", FEVER, SAYS, "and for men?", "") == NOTHING_MORE


def test_another_follow_up_prefers_what_was_not_said() -> None:
    evidence = [said(1, n, f"Different{n} matter{n} here{n}.", 0.9 - n / 100) for n in range(6)]
    first = quote("what helps?", FEVER[:1], evidence)
    assert "Different5" not in first
    assert "Different5" in quote("what else?", FEVER[:1], evidence, "what else?", first)


def test_a_follow_up_on_an_article_is_not_answered_from_another() -> None:
    sources = [source(1, "Shingles:", 0.6), source(2, "Eczema:", 0.59)]
    evidence = [said(1, 0, "The fluid can give chickenpox.", 0.6), said(2, 0, "Eczema is not contagious.", 0.9)]
    before = quote("?", sources[:1], evidence[:1])
    assert "Eczema" not in quote("shingles: is it contagious", sources, evidence, "is it contagious", before)
    nearest = [said(1, 0, "Eczema is not contagious.", 0.9)]
    assert "Eczema" in quote("and eczema?", sources[::-1], nearest, "and eczema?", before)
