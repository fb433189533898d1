"""Which messages are not in English: those that certainly are not."""

import pytest

from graph.languages import UNREAD, language, only_english
from graph.red_flags import INTERNATIONAL, emergency_number, regions
from tests.evaluation.questions import held_out_messages, messages, starter

FOREIGN = {
    "es": ["¿Cuáles son los síntomas de la gripe?", "tengo fiebre", "dolor de cabeza", "que es diabetes", "hola"],
    "de": ["Was hilft gegen Migräne?", "Kopfschmerzen", "was tun bei fieber", "Wie wird Gicht behandelt?"],
    "fr": ["Quels sont les symptômes de la grippe ?", "mon père a très mal", "comment soigner un rhume", "bonjour"],
    "it": ["Quali sono i sintomi dell'influenza?", "ho la febbre", "mal di testa", "come si cura il raffreddore"],
    "pt": ["Quais são os sintomas da gripe?", "dor de cabeça", "o que é diabetes", "não consigo dormir"],
    "pl": ["jakie są objawy grypy", "boli mnie głowa", "mam gorączkę"],
    "tr": ["Grip belirtileri nelerdir?", "başım ağrıyor", "baş ağrısı nasıl geçer"],
    "nl": ["wat zijn de symptomen van griep", "ik heb hoofdpijn"],
    "vi": ["tôi bị đau đầu"],
    UNREAD: ["मुझे सीने में तेज दर्द हो रहा है", "ما هي أعراض الأنفلونزا؟", "流感的症状是什么", "Какие симптомы гриппа?"],
}
ENGLISH = [
    *(
        "gout",
        "flu",
        "que",
        "die",
        "was",
        "MS",
        "ICH",
        "tos",
        "no",
        "mal",
        "influenza",
        "ich symptoms",
        "β",
        "β-blockers",
        "µg",
    ),
    *("Gilles de la Tourette", "what is Gilles de la Tourette syndrome", "café au lait spots", "petit mal seizure"),
    *(
        "tic douloureux",
        "mal de debarquement",
        "cor pulmonale",
        "in utero exposure",
        "rubor calor dolor tumor",
        "hay fever",
    ),
    *("gravida 3 para 2", "von Willebrand disease", "de Quervain", "la belle indifference", "Las Vegas smog asthma"),
    *("what does tengo fiebre mean", "my abuela has dolor de cabeza, what can she take", "Ménière's disease", "𝗀𝗈𝗎𝗍"),
    *(
        "wat are teh simptoms of shingels",
        "my son swalowed a buton battery",
        "gi bleed",
        "migrane",
        "how did he fare",
        "",
    ),
]


@pytest.mark.parametrize("spoken", FOREIGN)
def test_a_short_question_in_another_language_is_known(spoken: str) -> None:
    assert [language(text) for text in FOREIGN[spoken]] == [spoken] * len(FOREIGN[spoken])


def test_medical_terms_names_and_slips_are_english() -> None:
    assert [text for text in ENGLISH if language(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "do i need to call a doctor for mam",
        "mam fainted, do i need to worry",
        "Mia has a rash",
        "sono",
        "Elle has a fever",
        "Uma has a fever no cough",
        "los angeles doctor told me no ibuprofen",
        "i live in las vegas, no doctor near me, got a rash",
        "do i go to er for vad",
    ],
)
def test_a_name_or_an_abbreviation_makes_no_other_language(text: str) -> None:
    assert language(text) is None


def test_no_english_message_of_the_evaluation_is_taken_for_another_language() -> None:
    """Nor is one of those abroad that are too short to tell; and most of them are known."""
    said = [*messages(), *held_out_messages()]
    assert [one.text for one in said if one.kind != "abroad" and language(one.text)] == []
    assert [question.text for question in starter() if language(question.text)] == []
    abroad = [language(one.text) for one in said if one.kind == "abroad"]
    assert sum(spoken is not None for spoken in abroad) > len(abroad) / 2


@pytest.mark.parametrize("region", regions())
@pytest.mark.parametrize("spoken", FOREIGN)
def test_what_is_said_then_names_the_number_in_every_language(spoken: str, region: str) -> None:
    said = only_english(spoken, region)
    assert emergency_number(region) in said
    assert "{" not in said
    paragraphs = said.split("\n\n")
    assert len(paragraphs) == (2 if spoken in ("es", "de", "fr", "it", "pt", "pl", "tr") else 1)
    digits = "112" if region == INTERNATIONAL else emergency_number(region)
    assert all(digits in paragraph for paragraph in paragraphs)
