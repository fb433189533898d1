from itertools import pairwise

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from graph.emotional_support import CLINICAL, REPLIES, fits, reviewed
from graph.leaning import of_causes
from graph.red_flags import crisis_line, crisis_reminder, emergency_text, regions
from graph.state import turn_input
from graph.supervisor import by_rules, condense

INFORMATION = [
    "What are the symptoms of iron deficiency?",
    "hello",
    "headache",
    "can i take ibuprofen with wine",
    "my knee hurts when I climb stairs",
    "treatment for anxiety",
    "signs of depression",
    "I lost my sense of smell",
    "I'm struggling to sleep",
    "I missed my period",
]
DISTRESS = [
    "I feel so lonely",
    "My mother died last week and I keep crying",
    "I'm so overwhelmed, I can't cope anymore",
    "I feel like a failure",
    "I am really scared",
    "nobody understands me",
    "My mother died of cancer and I am so sad",
    "I lost my job",
    "I’m exhausted and I feel hopeless. What am I supposed to do?",
]
BOTH = [
    "I'm scared my mole is cancer",
    "I feel so anxious, what are the symptoms of a heart attack in women?",
    "I am worried about my blood pressure",
    "I'm terrified of this lump in my breast",
]


async def routed(message: str) -> tuple[str, bool]:
    ruled = by_rules(turn_input("t", message)["messages"])
    return ruled.agent, ruled.warm


@pytest.mark.parametrize("message", INFORMATION)
async def test_information_goes_to_the_articles(message: str) -> None:
    assert await routed(message) == ("rag_agent", False)


@pytest.mark.parametrize("message", DISTRESS)
async def test_distress_goes_to_emotional_support(message: str) -> None:
    assert await routed(message) == ("emotional_support", False)


@pytest.mark.parametrize("message", BOTH)
async def test_both_at_once_are_answered_from_the_articles_and_warmly(message: str) -> None:
    assert await routed(message) == ("rag_agent", True)


def said(*texts: str) -> list[AnyMessage]:
    """The user's messages, each but the last answered."""
    messages: list[AnyMessage] = []
    for text in texts:
        messages += [HumanMessage(text), AIMessage("an answer")]
    return messages[:-1]


@pytest.mark.parametrize(
    ("texts", "question"),
    [
        (["What helps with gout?"], "What helps with gout?"),
        (["What helps with gout?", "and for children?"], "What helps with gout? and for children?"),
        (["What helps with gout?", "is it contagious?"], "What helps with gout? is it contagious?"),
        (["What are the symptoms of iron deficiency?", "How is it treated?"], "Iron deficiency: How is it treated?"),
        (["What is gout?", "and for children?", "why is that?"], "What is gout? why is that?"),
        (["What helps with gout?", "What is asthma?"], "What is asthma?"),
        (["What helps with gout?", "And what are the symptoms of asthma?"], "And what are the symptoms of asthma?"),
        (["is it contagious?"], "is it contagious?"),
        (["Is it safe to take ibuprofen?", "and in children?"], "Is it safe to take ibuprofen? and in children?"),
        (["Is it gout?", "What is asthma?", "and for kids?"], "What is asthma? and for kids?"),
        (["What helps with gout?", "thanks", "and for children?"], "What helps with gout? and for children?"),
        (["Hello!", "What helps with gout?", "Great, that helped.", "why?"], "What helps with gout? why?"),
        (["What is asthma?", "How does one get gout?"], "How does one get gout?"),
        (["What is asthma?", "Why do people get gout?"], "Why do people get gout?"),
        (["What is asthma?", "Which one is worse?"], "What is asthma? Which one is worse?"),
        (["How does one get gout?", "and women?"], "How does one get gout? and women?"),
        (["How does one get gout?", "what should he eat then"], "Gout: what should he eat"),
        (["What helps with gout?", "ok, what to avoid"], "What helps with gout? ok, what to avoid"),
        (["What are the causes of gout?", "any side effects?"], "Gout: any side effects?"),
        (["wat are teh simptoms of shingels", "is it contageous"], "Shingels: is it contageous"),
        (["What is asthma?", "who are you"], "who are you"),
        (["What is asthma?", "my uncle said gout. is that dangerous?"], "gout. is that dangerous?"),
        (["What is asthma?", "my uncle said gout. is that dangerous?", "is it contagious"], "Gout: is it contagious"),
        (["What is asthma?", "ok thanks. is that dangerous?"], "What is asthma? ok thanks. is that dangerous?"),
        (["What is asthma?", "i just cant sleep, what helps with that?"], "i just cant sleep, what helps with that?"),
        (
            ["What is asthma?", "I took it for a week, is that bad?"],
            "What is asthma? I took it for a week, is that bad?",
        ),
        (["My doctor says I have gout, what helps?", "and at night?"], "I have gout, what helps? and at night?"),
        (["My doctor says I have gout, what helps?", "what to eat, please?"], "Gout: what to eat"),
        (["my husband has got a bad migraine", "how long does it last?"], "Bad migraine: how long does it last?"),
        (["I have to see a doctor", "what does it cost?"], "I have to see a doctor what does it cost?"),
    ],
)
def test_a_question_that_leans_on_an_earlier_one_is_joined_with_it(texts: list[str], question: str) -> None:
    assert condense(said(*texts)) == question


def told(*exchanges: tuple[str, str]) -> list[AnyMessage]:
    return [m for message, answer in exchanges for m in (HumanMessage(message), AIMessage(answer))]


@pytest.mark.parametrize("region", regions())
@pytest.mark.parametrize(
    "thanks",
    [
        "thank you, the ambulance is here now",
        "ok I called them",
        "they are on the way",
        "He is in the hospital and my sister stays with him tonight, so I can sit down at last, thank you",
    ],
)
def test_a_follow_up_leans_on_the_alarm_and_not_on_what_was_said_of_the_help_that_came(
    thanks: str, region: str
) -> None:
    """Whether the gate answered that, or it was too long for the gate and was declined."""
    alarm = told(("my dad has crushing chest pain", emergency_text("heart", region)))
    followed = told(
        (thanks, emergency_text("alarm_followed", region)), ("ok", emergency_text("alarm_followed", region))
    )
    declined = told((thanks, "I found nothing in the articles here."))
    for earlier in (alarm + followed, alarm + declined):
        assert condense([*earlier, HumanMessage("what causes it?")]) == "Crushing chest pain: what causes it?"
    asking = told(("What helps with gout?", "an answer"))
    assert condense([*alarm, *asking, HumanMessage("what causes it?")]) == "What helps with gout? what causes it?"


def test_a_follow_up_leans_on_the_trouble_and_not_on_an_answer_to_support() -> None:
    assert condense(said("I feel so anxious", "my exams, mostly", "what causes it?")) == (
        "I feel so anxious what causes it?"
    )


def test_a_conversation_of_any_length_is_routed() -> None:
    assert by_rules(said("I feel so lonely", *["hm, maybe"] * 2000)).agent == "emotional_support"


@pytest.mark.parametrize(
    ("question", "meant"),
    [
        ("How does one get gout?", "What causes gout?"),
        ("how do you get kidney stones", "What causes kidney stones?"),
        ("so how do people usually get the flu??", "What causes flu?"),
        ("How did my husband get a migraine?", "What causes migraine?"),
        ("How do kids get eczema?", "What causes eczema?"),
        ("How do you get rid of gout?", None),
        ("how do people get over a cold", None),
        ("How does one get better?", None),
        ("How do you get gout under control?", None),
        ("How do you get enough sleep?", None),
        ("How do people get vitamin D?", None),
        ("how do adults get a flu shot", None),
        ("How do you get a colonoscopy?", None),
        ("How do I get an appointment?", None),
        ("How do you get gout and how is it treated?", None),
    ],
)
def test_how_one_gets_an_illness_is_asked_as_what_causes_it(question: str, meant: str | None) -> None:
    assert of_causes(question) == (meant or question)


@pytest.mark.parametrize("message", DISTRESS)
def test_support_asks_one_open_question_and_names_no_medicine(message: str) -> None:
    text = reviewed(message)
    assert text.count("?") == 1
    assert not any(word in text.lower() for word in ("tablet", "medicine", "mg", "disorder", "diagnos"))


def test_of_a_rambling_message_the_question_is_kept() -> None:
    rambling = (
        "Hello, I hope you are well. My husband and I moved house last month and it was all a great deal of work, the "
        "boxes are still everywhere and I hardly sit down. Since Tuesday my big toe is swollen and red. What could it "
        "be? Thank you so much for your time, we do like the new garden very much by the way."
    )
    assert condense(said(rambling)) == "Since Tuesday my big toe is swollen and red. What could it be?"


@pytest.mark.parametrize("stop", ["", ","])
def test_of_a_rambling_message_without_full_stops_the_question_is_kept(stop: str) -> None:
    rambling = (
        f"so we were at my sisters wedding last weekend and it was lovely{stop} lots of dancing and anyway since "
        f"monday my big toe is swollen{stop} and it hurts when the sheet touches it{stop} and my uncle was there "
        f"with the dog and she is fine{stop} should i put ice on it{stop} thank you so much"
    )
    kept = condense(said(rambling))
    assert "big toe is swollen" in kept
    assert "should i put ice on it" in kept
    assert "wedding" not in kept
    assert "uncle" not in kept


def test_a_follow_up_on_a_rambling_message_leans_on_its_question_alone() -> None:
    rambling = (
        "so we were at my sisters wedding last weekend and it was lovely, lots of dancing and we drank a bit too much, "
        "anyway since monday my big toe has been really swollen and red and it hurts even when the bed sheet touches "
        "it, my uncle had something like that too, i dont know, i also have a cat and she is fine, should i put ice on "
        "it or what do you think is going on"
    )
    kept = condense(said(rambling))
    assert kept.startswith("since monday my big toe has been really swollen")
    assert kept.endswith("should i put ice on it")
    assert condense(said(rambling, "can I drink beer with it")) == f"{kept} can I drink beer with it"
    assert condense(said(rambling, "what do you think it is?")).startswith(kept)


def test_an_opinion_that_is_all_that_is_asked_for_asks_what_it_could_be() -> None:
    rambling = "we moved house last month and " * 8 + ". My knee is swollen. So what do you think is going on"
    assert condense(said(rambling)) == "My knee is swollen. What could it be?"


def test_every_message_finds_a_reply() -> None:
    assert reviewed("").startswith(REPLIES[-1].heard[0])
    assert "Losing someone" in reviewed("my dog died")


@pytest.mark.parametrize("region", regions())
def test_support_says_whom_to_call_if_it_becomes_too_much(region: str) -> None:
    assert "crisis line" in reviewed("I feel so lonely", region)


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        ("my mum just got diagnosed with breast cancer and I can't stop crying", "someone close to you is so ill"),
        ("my brother doesn't care", "those who should be there"),
        ("nobody understands me", "those who should be there"),
        ("My mother died of cancer and I am so sad", "Losing someone"),
        ("I lost my job", "how one sees oneself"),
        ("I feel so down, I can't sleep", "Nights without sleep"),
        ("I feel so lonely", "lonely"),
        ("she cares for me", "things are very heavy"),
    ],
)
def test_support_says_back_in_general_words_what_was_said(message: str, heard: str) -> None:
    assert heard in reviewed(message).split("\n\n")[0]


@pytest.mark.parametrize("message", ["no", "I feel so lonely", "my mother died"])
def test_support_says_nothing_twice_in_a_row_and_hands_over_briefly_after_the_first_time(message: str) -> None:
    answers: list[str] = []
    for _ in range(6):
        answers.append(reviewed(message, "us", answers))
    for before, after in pairwise(answers):
        assert not {*before.split("\n\n")[:2]} & {*after.split("\n\n")[:2]}
    assert crisis_line("us") in answers[0]
    assert all(answer.endswith(crisis_reminder("us")) for answer in answers[1:])
    assert all(answer.count("?") == 1 for answer in answers)
    assert len(answers[1]) < len(answers[0])


def test_no_reply_names_a_medicine_or_a_diagnosis() -> None:
    for reply in REPLIES:
        assert not any(CLINICAL.search(text) for text in (*reply.heard, *reply.questions))
        assert all(text.count("?") == 0 for text in reply.heard)
        assert all(text.count("?") == 1 for text in reply.questions)


@pytest.mark.parametrize(
    ("reply", "fitting"),
    [
        ("That sounds hard. What would help?", True),
        ("That sounds hard.", False),
        ("That sounds hard. Why? What would help?", False),
        ("Take 20 mg of fluoxetine. How is that?", False),
        ("", False),
    ],
)
def test_a_reply_fits_when_it_asks_one_question(reply: str, fitting: bool) -> None:
    assert fits(reply) is fitting


@pytest.mark.parametrize("answer", ["I don't know", "no", "everything I guess", "my sister maybe"])
def test_a_short_answer_to_support_stays_with_it(answer: str) -> None:
    assert by_rules(said("I feel so lonely", answer)).agent == "emotional_support"
    assert by_rules(said("I feel so lonely", "I don't know", answer)).agent == "emotional_support"
    assert by_rules(said("What is gout?", answer)).agent == "rag_agent"


@pytest.mark.parametrize("answer", ["What helps with gout?", "thank you", "thanks, that helped a lot", "my head hurts"])
def test_who_asks_for_something_else_leaves_support(answer: str) -> None:
    assert by_rules(said("I feel so lonely", answer)).agent == "rag_agent"


def test_a_sign_that_the_gate_let_pass_is_not_plain() -> None:
    assert not by_rules(said("my arm feels strange and the pain comes back")).plain
    assert by_rules(said("What are the symptoms of iron deficiency?")).plain


@pytest.mark.parametrize(
    ("texts", "named", "forgotten"),
    [
        (
            ["what is paracetamol?", "and ibuprofen?", "how many tablets can i take in a day?"],
            "ibuprofen",
            "paracetamol",
        ),
        (["what is paracetamol?", "what about ibuprofen?", "is it safe in pregnancy?"], "ibuprofen", "paracetamol"),
        (["how is gout treated?", "and stroke?", "what should i do?"], "stroke", "gout"),
    ],
)
def test_a_question_leans_on_what_was_named_last(texts: list[str], named: str, forgotten: str) -> None:
    """Else somebody who asks of one medicine would be told the dose of another."""
    question = condense(said(*texts)).lower()
    assert named in question
    assert forgotten not in question


@pytest.mark.parametrize("last", ["i have asthma, is it safe?", "my wife is pregnant, is it safe?"])
def test_who_asks_whether_it_suits_a_condition_asks_of_what_was_asked_of_before(last: str) -> None:
    question = condense(said("can i take ibuprofen", last)).lower()
    assert "ibuprofen" in question
    assert last in question
