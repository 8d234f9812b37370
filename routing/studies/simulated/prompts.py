"""English prompts of a known topic and difficulty, put together from templates and word lists.

A template is a sentence or a few with slots in braces; a slot takes each word of the list of its name in `WORDS`.
Nothing marks topic or difficulty but what is asked, as in a real prompt: a harder one asks for something harder.
"""

from __future__ import annotations

import math
from itertools import islice, zip_longest
from string import Formatter

import numpy as np
import pandas as pd

from routing.studies.simulated.words import WORDS

DIFFICULTIES = ("easy", "medium", "hard")

# topic -> one tuple of templates for each difficulty
TEMPLATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "coding": (
        (
            "How do I {list_task} in {language}?",
            "Write a {language} function that {small_function}.",
            "I'm new to {language}. Can you show me a simple example of {construct}?",
            "What is {construct} in {language} and when do I use one?",
            "I get {simple_error} in my {language} homework when I try to {list_task}. What does that mean?",
        ),
        (
            "Write a {language} script that {script_task}. It should {script_extra}.",
            "My {framework} app {symptom}. I have already tried {tried}. What should I look at next?",
            "Implement {structure} in {language} with unit tests and state the cost of each operation.",
            "Write a SQL query for {sql_goal}, given the tables {sql_tables}.",
            "How should I structure a {framework} project that {script_task}? Show the folders and the main classes.",
        ),
        (
            "Design a distributed {system} that survives {failure} and guarantees {guarantee}. Discuss the protocol, "
            "its failure modes, and how you would verify it.",
            "Implement a lock-free {concurrent} in {systems_language} and argue why it is linearizable under a weak "
            "memory model. Address memory reclamation and the ABA problem.",
            "Our {system} written in {systems_language} shows {hard_symptom} at 200k requests per second. Give a "
            "systematic diagnosis, down to cache lines, scheduler and kernel, and rank the hypotheses.",
            "Write an optimizing compiler pass over SSA form that performs {compiler_pass} for a {systems_language}-"
            "like language, and give a formal argument that it preserves semantics.",
            "Specify the replication protocol of a {system} in TLA+, state {guarantee} as an invariant, and explain "
            "how model checking would expose a violation under {failure}.",
        ),
    ),
    "maths": (
        (
            "What is {two_digit} times {one_digit}?",
            "What is {percent} percent of {round_number}?",
            "A {shape} is {one_digit} cm wide and {two_digit} cm long. What is its area?",
            "{child} has {two_digit} {things} and gives away {one_digit}. How many are left?",
            "Convert {two_digit} {unit_from} for me.",
            "Can you add {round_number} and {two_digit} and then divide by {one_digit}?",
        ),
        (
            "Solve the quadratic equation x^2 + {two_digit}x - {round_number} = 0 and show the steps.",
            "Find the derivative of f(x) = {function_a} {plus_times} {function_b}.",
            "Evaluate the integral of {function_a} {plus_times} {function_b} with respect to x.",
            "A bag holds {two_digit} red and {one_digit} blue balls. I draw {draws} without replacement. What is the "
            "probability that {colour_event}?",
            "Find the eigenvalues and eigenvectors of the matrix [[{one_digit}, 2], [1, {two_digit}]].",
            "Use {method} to find where {function_a} {plus_times} {function_b} is largest on [0, {one_digit}].",
        ),
        (
            "Prove that every {algebra_object} {algebra_claim}, or construct a counterexample.",
            "Let X be a {space}. Prove or disprove that every {map_kind} on X {map_claim}. State which hypotheses "
            "cannot be dropped.",
            "Give a rigorous proof of {theorem} that does not use {forbidden_tool}, and say how the argument extends "
            "to {extension}.",
            "Suppose (X_n) is a {process}. Show almost sure convergence of {functional} under minimal moment "
            "assumptions, and give the rate.",
            "Derive sharp asymptotics for {combinatorial} as n tends to infinity, with an explicit error term, using "
            "{asymptotic_tool}.",
        ),
    ),
    "writing": (
        (
            "Write a {funny} little poem about {poem_subject} for {audience}.",
            "Write a {funny} birthday message for my {relative}.",
            "Give me five catchy names for a {small_business}.",
            "Write a one-line {social} caption about {poem_subject}.",
            "Write a short, polite note to my {recipient} saying that {small_news}.",
            "Think of a {funny} slogan for a {small_business}.",
        ),
        (
            "Write a cover letter for the position of {job} at {employer}. I have {experience}.",
            "Write a 600-word blog post about {blog_subject} for {readers}, with a headline and three subheadings.",
            "Write a short story, about two pages, in which {character} {plot}. End with a twist.",
            "Draft a five-minute speech by {character} for {occasion}. Start with an anecdote.",
            "Rewrite the opening paragraph of my {genre} novel, where {character} {plot}, so that it hooks the reader.",
        ),
        (
            "Compose a {strict_form} on {theme} in strict metre whose {acrostic}, without a single forced rhyme or "
            "cliché.",
            "Write the first chapter of a literary novel on {theme}, told by {narrator}, in long sentences after "
            "{author}. Sustain the motif of {motif} and let the reader infer what is never said.",
            "Write a scene in which {character} {plot}, entirely in subtext, in the manner of {author}, with a "
            "non-linear chronology, told by {narrator}.",
            "Write a {strict_form} that argues against itself on {theme}, weaving in {motif} as an extended metaphor "
            "and echoing {author} without pastiche.",
            "Write a 2000-word essay on {theme} in the voice of {author}, interleaving memoir and criticism, with "
            "{motif} as its structural conceit.",
        ),
    ),
    "facts": (
        (
            "What is the capital of {country}?",
            "Who {famous_deed}?",
            "What language do people speak in {country}, and what currency do they use?",
            "How {measure} is {landmark}?",
            "Which has more people, {country} or {second_country}?",
            "Where is {landmark}, and can I visit it?",
            "What do {animal} eat?",
            "How long do {animal} live, and which country has the most of them?",
        ),
        (
            "How does {device} work?",
            "What were the main causes of {event}, and how did it end?",
            "Explain the difference between {science_pair}.",
            "Describe the economy and the political system of {country} in a few paragraphs.",
            "Compare {country} and {second_country} in size, climate and economy. Which was independent first?",
            "How did {event} change everyday life in {region}?",
            "What difference did {device} make to life in {region}, and why did it spread?",
        ),
        (
            "To what extent do historians still accept {thesis} as an account of {event}? Set out the competing "
            "schools and the archival evidence each relies on.",
            "Explain the molecular mechanism of {mechanism} and {angle}, with the experiments that established each "
            "step and what remains contested in the recent literature.",
            "What does {instrument} currently tell us about {open_question}? Weigh conflicting measurements and their "
            "systematic errors.",
            "Trace the historiography of {event} in {region}, from contemporary chronicles to the quantitative turn, "
            "and identify the methodological disputes.",
            "Which observations could discriminate between the leading hypotheses on {open_question}, and how would "
            "{instrument} constrain them quantitatively?",
        ),
    ),
    "translation": (
        (
            'How do you say "{phrase}" in {tongue}?',
            'Translate to {tongue}: "{phrase}"',
            "What is the {tongue} word for {household}?",
            "How do I count from one to {small_count} in {tongue}?",
            "Translate the word {household} into {tongue} and {second_tongue}.",
        ),
        (
            'Translate this email into polite {tongue}: "{email}"',
            'Is there a {tongue} equivalent of the saying "{idiom}"? Translate it literally and idiomatically.',
            'Translate into {tongue} and keep the informal tone: "{chat}"',
            'Translate this paragraph of our travel guide into {register} {tongue}: "{guide_text}"',
            'I translated "{idiom}" into {tongue} word for word and my colleague laughed. How would a native speaker '
            "put it in {register} {tongue}?",
        ),
        (
            "Translate these lines into {tongue}, preserving metre, rhyme and ambiguity, and justify each departure "
            'from the original: "{verse}"',
            "Render this contract clause in legally precise {tongue}, and annotate every term without an exact "
            'equivalent in that jurisdiction: "{clause}"',
            "Translate the passage into academic {tongue} with consistent terminology, and discuss which concepts of "
            '{scholarly} resist translation: "{dense}"',
            'Produce two {tongue} translations of "{verse}", one domesticating and one foreignizing, and analyse what '
            "each loses in register, prosody and allusion.",
            'Translate the pun-laden line "{wordplay}" into {tongue}, recreating the wordplay by compensation, and '
            "explain the phonetic and cultural constraints.",
        ),
    ),
    "reasoning": (
        (
            "{child} is taller than {friend}, and {friend} is taller than {third}. Who is the shortest?",
            "{child} finished the race before {friend} but after {third}. Who came first?",
            "Which one does not belong with the others: {odd_one_out}?",
            "If it is {weekday} today, which day was it {days_ago}?",
            "{child} is the {kinship} of {friend}. What is {friend} to {child}?",
            "All {group} are {quality}. {third} is one of the {group}. Is {third} {quality}?",
        ),
        (
            "{child}, {friend} and {third} each own a different pet: a cat, a dog or a parrot. {child} is allergic to "
            "fur, and {friend} does not own the {furry}. Who owns which pet? Explain your deductions.",
            "On an island, knights always tell the truth and knaves always lie. {child} says: '{knave_claim}'. "
            "{friend} says: '{knave_reply}'. Who is what?",
            "Is this argument logically valid? All {group} are {quality}. Some {other_group} are not {quality}. "
            "Therefore some {other_group} are not {group}.",
            "You have {jugs}. How can you measure exactly {litres} litres with the fewest pourings?",
            "Four friends must cross a bridge at night with one torch, taking {bridge_times} minutes. At most two "
            "cross together. {bridge_question}",
            "{child}, {friend} and {third} sit in a row of five chairs. {child} is not next to {friend}, and {third} "
            "sits {seat}. In how many ways can they sit, and why?",
        ),
        (
            "Formalise the following in {logic} and decide whether the conclusion follows, with a derivation or a "
            "countermodel: '{premises}'",
            "Consider {n_logicians} perfectly rational logicians with {hats} who are told: '{announce}'. "
            "Characterise by induction on common knowledge what each can deduce after every round.",
            "Find all {equilibrium} of a game in which {players} {game}, prove that there are no others, and discuss "
            "what changes when {perturbation}.",
            "In a causal graph where {causal_graph}, is the effect of X on Y identifiable from {causal_data}? Derive "
            "the estimand with do-calculus or prove that it is impossible.",
            "Resolve {paradox} as rigorously as you can: state the tacit premises in {logic}, show which subset is "
            "inconsistent, and defend the one you would reject.",
        ),
    ),
    "summarising": (
        (
            'Sum this message up in {short_form}: "{note}"',
            'What is the main point of this review? "I bought the {product} last {weekday}. {review}"',
            'TL;DR please: "{local_news} More about this on {weekday}."',
            'Shorten this text message: "{note} Call me before {weekday}."',
            'Give me {short_form} that says what this is about: "{local_news}"',
        ),
        (
            'Summarise the minutes of this meeting in {bullet_form}, with decisions and owners: "{minutes} {child} '
            'will report back by {weekday}."',
            'Summarise this newspaper article for {summary_reader} in about 80 words: "{article}"',
            'Condense the following report into {bullet_form}: "{article} {article_more}"',
            'Write an abstract of this interview in {bullet_form}: "{interview} {article_more}"',
            'Here is an email thread, please summarise it and list what is still open: "{minutes} {thread}"',
        ),
        (
            "Synthesise these two abstracts, reconcile their conflicting findings and appraise the methods: (1) "
            '"{abstract}" (2) "{abstract_reply}"',
            "Distil the ratio decidendi of this judgment into {expert_form}, and separate it from obiter dicta: "
            '"{judgment}"',
            "Summarise the argument below for {expert_reader}, make each implicit premise explicit and flag where the "
            'inference is weakest: "{dense}"',
            "Write {expert_form} of this abstract for {expert_reader}, keep every effect size and caveat, and state "
            'what the identification strategy cannot rule out: "{abstract}"',
            "Compress this passage into {expert_form} without losing any quantifier or qualification, then critique "
            'your own summary: "{dense} {abstract_reply}"',
        ),
    ),
    "advice": (
        (
            "What should I {cook} for {meal_guest}? I have {things_at_home}.",
            "What is a good present for my {relative} who likes {hobby}?",
            "How can I {small_habit}? I never manage it {meal_time}.",
            "Which {pick} would you recommend for someone who likes {hobby}?",
            "What should I wear to {event_to_dress}?",
            "I'm bored on a rainy {weekday}. Any ideas for something to do with my {relative}?",
        ),
        (
            "How should I prepare for {life_step} in {weeks} weeks, while working full time?",
            "My {difficult_person} {annoyance}. How can I bring it up without a quarrel?",
            "I earn {salary} a month and want to {money_goal}. Can you suggest a budget and a plan?",
            "I'm thinking of {change}, but I worry about {worry}. What should I consider before I decide?",
            "My {difficult_person} keeps asking about {worry} since I told them I'm {change}. What can I say?",
        ),
        (
            "I must decide within a month whether to {dilemma}, while {complication} and {constraint}. Lay out the "
            "legal, financial and emotional trade-offs, the irreversible steps, and a decision procedure.",
            "As the {leader} of {organisation}, I learnt that {crisis}. How do I balance duties to staff, "
            "creditors and regulators, and in which order should I act?",
            "{complication_start}, and {constraint}. Design a five-year strategy with contingencies that weighs tax, "
            "care obligations and my own health, and say what would change your mind.",
            "I advise a family where {complication} and {family_conflict}. How should I mediate, given an ethical "
            "conflict of interest and {constraint}?",
            "As the {leader} of {organisation}, should I {leader_dilemma}, when {crisis}? Argue both sides at their "
            "strongest, then recommend under uncertainty.",
        ),
    ),
}

# What people add, whatever the difficulty: a sentence before or after the request.
GREETINGS = ("Hi!", "Hello.", "Hey there!", "Good morning.", "Hi, I could use some help.", "I have a question.")
ASIDES = {
    "coding": ("No external libraries, please.", "I'm on Linux.", "Explain it as you go.", "Please be concise."),
    "maths": (
        "Show your working.",
        "Please check the result.",
        "I need to explain it to my class.",
        "I always get this wrong.",
    ),
    "writing": ("Keep the tone warm.", "British spelling, please.", "Avoid exclamation marks.", "Surprise me."),
    "facts": ("Please be accurate.", "Name a source if you can.", "I want to tell my students.", "I keep forgetting."),
    "translation": ("I don't speak it myself.", "It is for a friend.", "Mark the stress.", "Note any alternatives."),
    "reasoning": ("Think it through.", "My brother says otherwise.", "Don't just guess.", "Explain how you know."),
    "summarising": ("Don't add anything.", "Keep the names.", "I have no time to read it.", "Stay neutral."),
    "advice": ("Be honest with me.", "I live in a small town.", "My friends all disagree.", "I'm a bit nervous."),
}


def _slots(template: str) -> list[str]:
    """Names of the slots of a template, each once, in order of appearance."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


def _count_fillings(template: str) -> int:
    return math.prod(len(WORDS[slot]) for slot in _slots(template))


def _fill(template: str, number: int) -> str:
    """The filling of that number: its digits, in the mixed base of the lists' lengths, choose the words."""
    words = {}
    for slot in _slots(template):
        number, choice = divmod(number, len(WORDS[slot]))
        words[slot] = WORDS[slot][choice]
    return template.format(**words)


def _draw_requests(templates: tuple[str, ...], n_requests: int, rng: np.random.Generator) -> list[str]:
    """Distinct requests, about as many from each template, until its fillings are used up."""
    fillings = [[(template, number) for number in rng.permutation(_count_fillings(template))] for template in templates]
    in_turn = (choice for turn in zip_longest(*fillings) for choice in turn if choice is not None)
    return [_fill(template, int(number)) for template, number in islice(in_turn, n_requests)]


def _add_asides(request: str, topic: str, rng: np.random.Generator) -> str:
    """The request as people send it: one in four after a greeting, two in five with a sentence or two behind it."""
    greeting = [rng.choice(GREETINGS)] if rng.random() < 0.25 else []
    asides = rng.choice(ASIDES[topic], size=rng.choice(3, p=[0.6, 0.3, 0.1]), replace=False)
    return " ".join([*greeting, request, *asides])


def draw_prompts(n_prompts: int, rng: np.random.Generator) -> pd.DataFrame:
    """Distinct prompts in random order, as many of each topic and difficulty as of any other (give or take one).

    Returns
    -------
    DataFrame, n_prompts rows
        Columns ``prompt``, ``topic`` (a key of `TEMPLATES`) and ``difficulty`` (one of `DIFFICULTIES`).

    Raises
    ------
    ValueError
        Fewer than one prompt, or more than there are.
    """
    kinds = [(topic, level) for topic in TEMPLATES for level in range(len(DIFFICULTIES))]
    limit = len(kinds) * min(sum(map(_count_fillings, TEMPLATES[topic][level])) for topic, level in kinds)
    if not 1 <= n_prompts <= limit:
        raise ValueError(f"n_prompts is {n_prompts}; between 1 and {limit} distinct prompts can be drawn")
    share = np.full(len(kinds), n_prompts // len(kinds))
    share[rng.permutation(len(kinds))[: n_prompts % len(kinds)]] += 1
    rows = []
    for (topic, level), n_requests in zip(kinds, share, strict=True):
        for request in _draw_requests(TEMPLATES[topic][level], int(n_requests), rng):
            rows.append((_add_asides(request, topic, rng), topic, DIFFICULTIES[level]))
    prompts = pd.DataFrame(rows, columns=["prompt", "topic", "difficulty"])
    return prompts.iloc[rng.permutation(n_prompts)].reset_index(drop=True)
