"""Whether a question leans on what was said before it, and what a question is about. Pure."""

import re

from graph.phrases import one_slip

LEANS_MAX_WORDS = 8


def any_of(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b")


GOES_ON = (
    r"and|but|also|so|or|what about|how about|what if|why(?= not\b|\W*$)",
    r"(?:for|in) (?:children|kids|adults|women|men|babies|pregnan\w+|older)",
)
ELLIPTIC = re.compile(rf"^\W*{any_of(*GOES_ON).pattern}")
LEANS = re.compile(rf"^\W*{any_of(*GOES_ON, 'is it|is that|are they|does it|do they|can it|can they').pattern}")
POINTS_BACK = any_of("it|its|that|this|them|they|those|these", r"(?:which|the(?: \w+)?) ones?")
SMALL_TALK = re.compile(
    r"\W*(?:(?:(?:hello|hi|hey|good (?:morning|evening|afternoon|night)|thanks?|thank you|thx|ok|okay|bye|goodbye|great"
    r"|cool|perfect|got it|i see|understood|all ?right)(?: there| so much| very much| a lot| again| for (?:that|this|"
    r"(?:the|your) (?:help|answer)))?|(?:that|this|it)(?:['’]?s| is| was| has)? (?:helps|helped|helpful|useful|great|"
    r"good to know)(?: me)?(?: a lot)?)\b\W*)+",
    re.IGNORECASE,
)
CLAUSE_END = re.compile(r"[.!?;,\n]+\s*")
WORD = re.compile(r"[^\W\d_]+")
# With these words one asks about anything: a question of nothing else names no topic.
TOPICLESS = re.compile(
    r"i|you|he|she|we|they|one|it|me|him|her|us|them|my|your|his|its|our|their|this|that|these|those|a|an|the"
    r"|someone|somebody|anyone|anybody|person|people|child|children|kid|kids|baby|babies|adult|adults|man|men"
    r"|woman|women|older|old|mum|mom|mother|dad|father|wife|husband|partner|son|daughter|brother|sister|friend"
    r"|uncle|aunt|am|is|are|was|were|be|been|being|im|ive|hes|shes|theyre|do|does|did|doing|done|dont|doesnt|didnt"
    r"|isnt|arent|wasnt|have|has|had|having|can|cant|cannot|could|couldnt|should|shouldnt|shall|will|wont|would"
    r"|wouldnt|may|might|must|need|needs|ought|what|whats|when|where|which|who|whom|whose|why|how|hows|whether|yes"
    r"|no|ok|okay|please|thanks|thank|well|and|or|but|so|then|than|also|too|as|at|by|for|from|in|into|of|off|on"
    r"|onto|out|over|to|up|down|with|without|about|after|before|during|until|till|while|if|because|since|between"
    r"|instead|else|again|now|later|soon|today|tonight|tomorrow|still|ever|never|always|often|sometimes|usually"
    r"|not|nothing|much|many|more|most|less|least|few|some|any|all|every|each|other|another|enough|long|far|fast"
    r"|quickly|twice|both|first|next|last|only|just|even|really|very|two|three|four|five|six|eight|ten|time|times"
    r"|day|days|night|nights|morning|evening|week|weeks|month|months|hour|hours|minutes|year|years|help|helps"
    r"|helping|helped|work|works|working|try|trying|tried|take|takes|taking|took|taken|use|uses|using|used|get"
    r"|gets|getting|got|give|gives|giving|go|goes|going|went|come|comes|coming|eat|eats|eating|drink|drinks"
    r"|drinking|drive|fly|travel|avoid|avoids|avoiding|stop|stops|stopping|start|starts|make|makes|making|made|see"
    r"|know|tell|think|expect|say|said|says|ask|call|keep|let|want|wants|look|watch|find|happen|happens|happening"
    r"|happened|lasts|recover|recovery|change|changes|worse|worst|bad|better|best|good|serious|normal|safe"
    r"|possible|likely|common|curable|contagious|infectious|hereditary|dangerous|allowed|necessary|important|right"
    r"|wrong|different|same|able|thing|things|something|anything|everything|way|ways|kind|kinds|sort|food|foods"
    r"|meal|meals|diet|doctor|doctors|gp|nurse|hospital|pharmacist|pharmacy|medicine|medicines|medication"
    r"|medications|tablet|tablets|pill|pills|drug|drugs|dose|treatment|treatments|treat|treated|cure|cured|cures"
    r"|remedy|remedies|home|symptom|symptoms|sign|signs|cause|causes|caused|risk|risks|danger|dangers|side|effect"
    r"|effects|test|tests|tested|surgery|operation"
)
ASKS = re.compile(
    r"what|whats|when|where|which|who|why|how|hows|can|could|should|shall|must|may|is|are|was|do|does|did|will"
    r"|would|any"
)
OF_THIS_PAGE = any_of("(?:who|what|how) are you", "can you (?:help|do)", "what (?:can|do) you (?:do|know)")
BEFORE_ASKING = re.compile(r"and|or|but|so|then|also|well|ok|okay|yes|no|please|thanks")
SUBJECT = re.compile(
    r"\b(?:symptoms?|signs?|causes?|treatments?|side effects?|risks?|dangers?) (?:of|for) ([^.?!,]+?)[\s.?!]*$",
    re.IGNORECASE,
)
SUBJECT_WORDS = ("symptom", "symptoms", "causes", "treatment", "treatments", "effects", "dangers")
LONG_WORD = re.compile(r"[^\W\d_]{5,}")
OWN_SUBJECT = re.compile(r"\b(?:symptoms|causes|treatment|signs) of \w+")
HEARSAY = re.compile(
    r"(?:^|(?<=[.!?,;] ))(?:(?:so|and|but|ok|well|anyway) )?"
    r"(?:my \w+|he|she|they|the (?:doctor|nurse|gp|pharmacist)|someone|somebody|people|a friend)(?: of mine)?"
    r"(?: (?:just|has|have|had|also))? (?:sa(?:id|ys?)|told me|thinks?|thought|reckons?|mentioned|suspects?|suggested"
    r"|diagnosed me with)(?: (?:that|about))?"
    r"(?: (?:it|this)(?:['’]?s| (?:is|was|could be|might be|may be|must be)))?(?: (?:maybe|probably|perhaps))? (?=\w)",
    re.IGNORECASE,
)
HAS = re.compile(
    r"^(?:my \w+|i|he|she|we|they)(?:['’]ve)?(?: (?:just|also))? (?:ha(?:s|ve|d)(?: got)?|got|gets?|keeps? getting"
    r"|suffers? from)(?: been)? (?!(?:to|no|not|never)\b)(?:an? |some |the )?(?P<what>\w+(?: [\w'’-]+){0,5})[\s.!]*$",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"^\W*(?:(?:and|but|so|ok|well) )?(?:i|he|she|we|they|my \w+)(?:['’](?:m|ve|s|re)|"
    r" (?:also )?(?:have|has|had|got|am|is|are|was|suffers? from|takes?))\b"
)
SUITS = any_of("safe|ok|okay|allowed|take|takes|use|uses|have|give")
FILLER = re.compile(r"(?<=\w)[\s,]+(?:then|though|anyway|please|thanks|thank you)[\s?.!]*$", re.IGNORECASE)
# What one gets without being ill, or gets done: "how do people get vitamin D" asks for no cause.
WANTED = (
    r"rid|over|better|well|help\w*|more|less|enough|to|out|off|up|down|away|back|on|in|into|through|by|for|from|with|at"
    r"|without|under|some|any|your|my|our|their|his|her|here|there|tested|checked|done|diagnos\w*|treat\w*|prescri\w*"
    r"|appointments?|results?|pregnant|fit\w*|health\w*|strong\w*|slim\w*|vitamins?|iron|protein|fib(?:re|er)|calcium"
    r"|energy|sleep|exercise|sun\w*|oxygen|antibiotics?|medic\w+|pills?|tablets?|inhalers?|surgery|screen\w*|vaccin\w*"
    r"|shots?|jabs?|scans?|tests?|\w+scop\w+|\w+grams?|\w*therapy|doctors?|ambulances?|information"
)
GETS = re.compile(
    r"\W*(?:(?:so|and|but|ok|okay)\W+)?how (?:(?:do|does|did|can|could) (?:one|you|we|people|some(?:one|body)"
    r"|any(?:one|body)|a person|men|women|adults|children|kids|babies)|did (?:i|he|she|they|my \w+)) (?:\w+ly )?get "
    rf"(?!.*\b(?:{WANTED})\b)(?:an? |the (?=flu|runs|shingles|mumps|measles|hiccups))?"
    r"(?P<what>[a-z][\w'’-]*(?: [\w'’-]+){0,3}?)[\s?.!]*$",
    re.IGNORECASE,
)


def plain(message: str) -> str:
    return message.lower().replace("’", "'")


def leans(question: str) -> bool:
    """It points back beyond itself, or goes on from what was asked, or names no topic at all."""
    said = plain(question)
    if _asks_whether_it_suits(said):
        return True
    if _topics(said):
        return False
    if _asks_about_anything(said):
        return True
    if len(said.split()) > LEANS_MAX_WORDS or OWN_SUBJECT.search(said):
        return False
    return LEANS.search(said) is not None or POINTS_BACK.search(said) is not None


def goes_on_with(question: str) -> str:
    """Of "and ibuprofen?" what it names anew; nothing of "and for children?"."""
    rest = question
    while found := ELLIPTIC.match(plain(rest)):
        rest = rest[found.end() :]
    return "" if rest == question or _topicless(rest) else rest.strip()


def is_elliptic(question: str) -> bool:
    """Of "and for children?" only what came before says what is asked of them."""
    return ELLIPTIC.search(plain(question)) is not None


def subject(question: str, whole: bool = False) -> str:
    """What the question was about: of "what are the symptoms of iron deficiency?" the illness, so that the symptoms do
    not weigh down the next question, and of "my husband has gout" not the husband; of any other form, or when it is
    wanted whole, all of it."""
    question = question.strip()
    named = SUBJECT.search(LONG_WORD.sub(_mended, question))
    about = [named[1]] if named else []
    if not about and not whole:
        got = GETS.match(question)
        about = [got["what"]] if got else _topics(question) or [question] * bool(HAS.match(question))
    said = ", ".join(HAS.sub(r"\g<what>", clause.strip()) for clause in about)
    return f"{said[0].upper()}{said[1:]}:" if said else question


def of_causes(question: str) -> str:
    """ "How does one get gout?" asks for what causes it, but its words are nearer to how one gets rid of it."""
    found = GETS.match(question)
    return f"What causes {found['what']}?" if found else question


def without_hearsay(message: str) -> str:
    """Of "my uncle said gout" what he said: the article knows no uncle."""
    return HEARSAY.sub("", message)


def without_filler(question: str) -> str:
    """Of "what to eat then" without "then", which no article has."""
    return FILLER.sub("", question)


def _topics(question: str) -> list[str]:
    """The clauses in which a question names what its last one then asks about: of "my knee hurts, is that bad?" the
    first. None when they themselves point back to something else."""
    *before, last = [clause for clause in CLAUSE_END.split(question) if clause.strip()] or [""]
    named = [clause for clause in before if not SMALL_TALK.fullmatch(clause) and not _topicless(clause)]
    pointing = any(POINTS_BACK.search(plain(clause)) or LEANS.search(plain(clause)) for clause in named[:1])
    leaning = POINTS_BACK.search(plain(last)) is not None or _topicless(last)
    return named if leaning and not pointing else []


def _asks_whether_it_suits(said: str) -> bool:
    """ "I have asthma, is it safe?" is about what was asked of before: alone it would be asked of asthma."""
    *before, last = [clause for clause in CLAUSE_END.split(said) if clause.strip()] or [""]
    suits = SUITS.search(last) is not None and POINTS_BACK.search(last) is not None and _topicless(last)
    return suits and bool(before) and all(CONDITION.search(clause) or SMALL_TALK.fullmatch(clause) for clause in before)


def _topicless(clause: str) -> bool:
    return all(TOPICLESS.fullmatch(word) for word in _words(clause))


def _asks_about_anything(said: str) -> bool:
    if not _topicless(said) or OF_THIS_PAGE.search(said):
        return False
    asking = (
        [word for word in _words(clause) if not BEFORE_ASKING.fullmatch(word)] for clause in CLAUSE_END.split(said)
    )
    return any(ASKS.fullmatch(words[0]) for words in asking if words)


def _words(clause: str) -> list[str]:
    return WORD.findall(plain(clause).replace("'", ""))


def _mended(found: re.Match[str]) -> str:
    return next((word for word in SUBJECT_WORDS if one_slip(found[0].lower(), word)), found[0])
