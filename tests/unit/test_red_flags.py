import re
import time
from importlib.resources import files

import pytest

from graph.crisis import FOLLOWING
from graph.red_flags import (
    categories,
    crisis_line,
    emergency_number,
    emergency_text,
    find_flag,
    regions,
    tells_of_a_sign,
    topic_line,
)
from tests.conftest import Say
from tests.evaluation import safety

HELD_OUT_RECALLED, HELD_OUT_PRECISION = 52, 0.94

NOW = [
    ("heart", "my dad has chest pain now"),
    ("heart", "I have crushing chest pain and my left arm hurts"),
    ("heart", "severe chest pain"),
    ("heart", "I think I'm having a heart attack"),
    ("heart", "bad chest pian since this morning, im sweating"),
    ("heart", "Should I take an aspirin? I have a tight feeling in my chest"),
    ("heart", "What should I do, my husband has chest pain right now"),
    ("stroke", "her face is drooping and her speech is slurred"),
    ("stroke", "my grandpa suddenly can't move his arm"),
    ("stroke", "I think he is having a storke"),
    ("stroke", "this is the worst headache of my life"),
    ("breathing", "I cant breath"),
    ("breathing", "I don’t have chest pain but I can't breathe"),
    ("breathing", "my baby's lips are turning blue"),
    ("breathing", "my toddler is choking"),
    ("unconscious", "he is unconcious, please help"),
    ("unconscious", "my wife won't wake up"),
    ("unconscious", "She collapsed and is not breathing"),
    ("anaphylaxis", "I ate peanuts and my throat is closing"),
    ("anaphylaxis", "A bee stung him and his face is swelling up"),
    ("poisoning", "i took 25 iron pills last night"),
    ("poisoning", "my toddler swallowed a button battery"),
    ("poisoning", "She took a whole bottle of tylenol"),
    ("poisoning", "our carbon monoxide alarm is beeping and I have a headache"),
    ("bleeding", "I cut my hand and it won't stop bleeding"),
    ("bleeding", "my father is vomiting blood"),
    ("seizure", "my friend is having a seizure"),
    ("infection", "my 6 week old baby has a fever of 38.5"),
    ("infection", "My son has a rash that doesn't fade when I press a glass on it"),
    ("pregnancy", "I'm 30 weeks pregnant and bleeding heavily"),
    ("pregnancy", "pregnat with severe headache and blurred vision"),
    ("self_harm", "I want to kill myself"),
    ("self_harm", "kms"),
    ("self_harm", "i want to unalive myself"),
    ("self_harm", "I don't want to live anymore"),
    ("self_harm", "my friend says she wants to die"),
    ("self_harm", "how many paracetamol do I need to die"),
    ("self_harm", "everyone would be better off without me"),
    ("self_harm", "I feel suicidle"),
    ("self_harm", "My daughter is cutting herself"),
    ("self_harm", "i dont see the point of waking up anymore"),
    ("self_harm", "I no longer see any point in being here"),
    ("poisoning", "i already took 10 of them today"),
    ("poisoning", "she has taken twenty of those"),
    ("harm_by_others", "my husband hits me"),
    ("harm_by_others", "I was raped last night"),
]

TOPIC = [
    ("stroke", "How to diagnose stroke?"),
    ("heart", "What are the symptoms of a heart attack?"),
    ("heart", "My dad had a heart attack last year, what can he eat?"),
    ("heart", "I had crushing chest pain in 2019"),
    ("unconscious", "he collapsed and was unconscious two years ago"),
    ("anaphylaxis", "what is anaphylaxis"),
    ("self_harm", "What are the warning signs of suicide?"),
    ("seizure", "What causes seizures?"),
    ("poisoning", "what happens in a paracetamol overdose"),
    ("infection", "what is sepsis"),
    ("heart", "when should I worry about chest pain"),
    ("breathing", "What should I do if someone is choking?"),
]

NOTHING = [
    "What are the symptoms of iron deficiency?",
    "I have no chest pain, only a cough",
    "my son doesn't have trouble breathing, but he coughs",
    "how to prevent heatstroke",
    "I can't breathe through my nose because of my cold",
    "I'm dying to know what TSH means",
    "my gums bleed when I brush",
    "I took 2 ibuprofen an hour ago, can I drink wine?",
    "can I take 400 mg ibuprofen",
    "I cut myself shaving, how do I stop it?",
    "food poisoning how long does it last",
    "my feet are killing me",
    "I don't see the point of a second opinion",
    "I took two of them this morning",
    "I am not suicidal, just tired",
    "The doctor said my blood pressure is 130 over 85",
    "my mum had her gallbladder out",
    "I love swimming breaststroke",
    "What time should I take my iron tablets?",
    "",
    "?!",
]


@pytest.mark.parametrize(("category", "message"), NOW)
def test_a_person_in_danger_is_an_alarm(category: str, message: str) -> None:
    assert find_flag(message) == (category, True)


@pytest.mark.parametrize("space", ["  ", "\t", "\n", "\u00a0", " \r\n "])
@pytest.mark.parametrize(("category", "message"), NOW)
def test_an_alarm_is_heard_however_its_words_are_parted(category: str, message: str, space: str) -> None:
    flag = find_flag(message.replace(" ", space))
    assert flag is not None
    assert (flag.category, flag.now) == (category, True)


@pytest.mark.parametrize(("category", "message"), TOPIC)
def test_a_question_about_an_emergency_is_a_topic(category: str, message: str) -> None:
    assert find_flag(message) == (category, False)


@pytest.mark.parametrize("message", NOTHING)
def test_other_messages_raise_nothing(message: str) -> None:
    assert find_flag(message) is None


@pytest.mark.parametrize("name", ["red_flags.yaml", "red_flags_abroad.yaml", "red_flag_texts.yaml", "languages.yaml"])
def test_rules_and_texts_say_their_version(name: str) -> None:
    assert re.search(r'^version: "20\d\d-\d\d-\d\d"$', files("graph").joinpath(name).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("region", regions())
def test_every_category_has_a_text_with_the_regions_number_and_nothing_left_to_fill_in(region: str) -> None:
    for category in (*categories(), *FOLLOWING):
        for text in (emergency_text(category, region), topic_line(category, region), crisis_line(region)):
            assert emergency_number(region) in text
            assert not re.search(r"[{}]", text)


def test_a_region_has_its_own_numbers() -> None:
    assert "999" in emergency_text("heart", "uk")
    assert "116 123" in emergency_text("self_harm", "uk")
    assert "988" not in emergency_text("self_harm", "uk")
    assert "1-800-222-1222" in emergency_text("poisoning", "us")
    assert "13 11 14" in topic_line("self_harm", "au")


def test_self_harm_is_asked_about_directly_and_the_conversation_goes_on() -> None:
    text = emergency_text("self_harm", "international")
    assert "in danger of suicide or self-harm right now?" in text
    assert "crisis line" in text
    assert text.endswith("?")


def test_of_the_labelled_messages_no_alarm_is_missed(say: Say) -> None:
    judged = safety.judge()
    assert len(judged) >= 150
    precision = safety.precision(judged)
    say(f"safety: {len(judged)} messages, recall {safety.recall(judged):.3f}, precision {precision:.3f}")
    assert [one.message.text for one in judged if one.missed] == []
    assert precision >= 0.97


def test_of_the_labelled_messages_topics_are_told_from_nothing() -> None:
    judged = safety.judge()
    wrong = [one.message.text for one in judged if one.message.expected != "now" and one.found != one.message.expected]
    assert len(wrong) <= 3, wrong


def test_what_recall_is_worth_on_messages_that_the_rules_were_not_tuned_on(say: Say) -> None:
    """The floor is what was measured when the set was frozen. Rules are never tuned on these messages; whoever raises
    recall on others may raise the floor."""
    judged = safety.judge_held_out()
    recalled, silenced = safety.recalled(judged), safety.silenced(judged)
    say(f"held out: recall {recalled}, precision {safety.precision(judged):.3f}, silent {silenced}")
    assert recalled.hits >= HELD_OUT_RECALLED
    assert safety.precision(judged) >= HELD_OUT_PRECISION
    tuned = {one.message.text for one in safety.judge()}
    assert sum(one.message.text in tuned for one in judged) == 0  # said without showing them


def test_a_share_has_wilsons_interval() -> None:
    assert safety.Share(17, 34).interval == pytest.approx((0.341, 0.659), abs=0.001)
    assert safety.Share(34, 34).interval == pytest.approx((0.898, 1.0), abs=0.001)


@pytest.mark.parametrize(
    ("message", "tells"),
    [
        ("my arm feels strange since lunch", True),
        ("my knee hurts when I climb stairs", True),
        ("What is gout?", False),
        ("which foods have iron", False),
    ],
)
def test_who_tells_of_a_sign_is_told_from_who_asks(message: str, tells: bool) -> None:
    assert tells_of_a_sign(message) is tells


@pytest.mark.parametrize(
    "text",
    [
        "the articles say that this is a normal reading of a test ",
        "my chest hurts and I can't breathe, ",
        "no ",
        "i,",
        "i \n\n",
        "what should i do if i can't not cannot ",
        "ch\u0435st pa\u0301in ",
        "swalowd brething unconcious ",
        "a",
    ],
)
def test_a_message_of_any_kind_is_judged_in_milliseconds(text: str) -> None:
    """Processor time, the best of five: 4,000 characters of prose take about 4 ms, of the worst about 20."""
    message = (text * 4000)[:4000]
    took = []
    for _ in range(5):
        began = time.process_time()
        find_flag(message)
        took.append(time.process_time() - began)
    assert min(took) < 0.1
