"""The word lists that fill the slots of the prompt templates in `routing.studies.simulated.prompts`.

A slot means the same in every template, so a list is named for what it holds; within a list any word fits.
"""

from __future__ import annotations

import re

# One list an entry: the slot's name, then its words, "|" between two; continuation lines are indented.
_LISTS = r"""
language = Python | JavaScript | Java | C# | Go | Ruby | PHP | Kotlin | Swift | TypeScript
list_task = reverse a string | sort a list of numbers | read a text file line by line | print a table of names | remove
  duplicates from a list | count the words in a sentence | round a number to two decimals | join two strings
small_function = returns the sum of a list of integers | checks whether a word is a palindrome | finds the largest value
  | converts Celsius to Fahrenheit | counts the vowels in a string | says whether a year is a leap year
construct = a for loop | an if statement | a while loop | a function with two arguments | a dictionary | a class | an
  enum
simple_error = a syntax error | a type error | a null pointer error | a "variable not defined" error | an index out of
  range error
script_task = downloads every image on a web page | imports a CSV file of orders into SQLite | resizes a folder of
  photos | polls a REST API page by page | parses server logs and plots errors per hour | sends a weekly report by email
script_extra = retry when the network fails | log what it does and be easy to configure | run from the command line |
  skip what it has already done | come with a few unit tests | handle missing or malformed values
framework = React | Django | Flask | Spring Boot | Vue | Rails | Flutter | Laravel
symptom = renders the list twice after every login | returns a 403 error on POST requests | forgets the session on
  reload | gets slow when the table has more than ten thousand rows | shows stale data until I refresh
tried = clearing the cache | upgrading all packages | adding log statements | a fresh database
structure = an LRU cache | a binary search tree | a trie with prefix search | a priority queue | an undo and redo stack
  | a token bucket rate limiter | a thread-safe event bus
sql_goal = the three best customers of each month | products that were never ordered | the running total of sales |
  customers who came back within 30 days | the median order value per country
sql_tables = customers, orders and items | users(id, name), orders(id, user_id, total, day) | shops, products and sales
system = key-value store | message queue | payment ledger | job scheduler | lock service | time-series database
failure = network partitions | Byzantine nodes | clock skew | disk corruption | the loss of a whole region
guarantee = linearizability | exactly-once delivery | serializable isolation | causal consistency
concurrent = hash map | skip list | multi-producer queue | work-stealing deque | priority queue | memory allocator |
  B-tree
systems_language = C++ | Rust | C | Zig
hard_symptom = tail latency spikes at the 99.9th percentile | false sharing and priority inversion | heap fragmentation
  | a deadlock that appears once a week | a throughput collapse under memory pressure
compiler_pass = partial redundancy elimination | loop-invariant code motion | escape analysis | polyhedral loop tiling |
  global value numbering | register coalescing | auto-vectorization
one_digit = 3 | 4 | 5 | 6 | 7 | 8 | 9
two_digit = 12 | 14 | 15 | 18 | 21 | 24 | 27 | 32 | 36 | 45
percent = 5 | 10 | 15 | 20 | 30 | 60
round_number = 120 | 250 | 300 | 480 | 640 | 900
shape = rectangle | sheet of paper | photo | label | ticket
child = Anna | Ben | Chloe | Daniel | Emma | Felix | Grace | Hugo
things = apples | marbles | stickers | pencils | sweets
unit_from = miles to kilometres | pounds to kilograms | inches to centimetres | hours to minutes | litres to millilitres
function_a = sin(x) | x^3 | ln(x + 1) | e^(2x) | sqrt(x + 4) | cos(3x)
function_b = (x^2 + 1) | (3 - x) | (4 - x^2) | (2x - 1) | (5x + 3)
plus_times = + | times
draws = two | three | four
colour_event = all of them are red | exactly one is blue | at least one is blue | they all have the same colour
method = Lagrange multipliers | Newton's method with two iterations | the second derivative test | a table of signs
algebra_object = finite p-group | Noetherian integral domain | simple module over an Artinian ring | Lie algebra of rank
  one | Galois extension of odd degree | finitely generated projective module
algebra_claim = has a nontrivial centre | admits a composition series | is isomorphic to its double dual | splits | has
  only finitely many automorphisms | embeds in a direct sum of cyclic ones | is determined by its characters
space = separable Banach space | compact Hausdorff space | locally convex space | complete metric space |
  second-countable manifold | reflexive Sobolev space
map_kind = bounded linear functional | continuous self-map | closed operator | uniformly equicontinuous family
map_claim = attains its norm | has a fixed point | extends to the completion | is weakly compact | is an open mapping
theorem = the Hahn-Banach theorem | quadratic reciprocity | the Brouwer fixed point theorem | the prime number theorem |
  the spectral theorem | the Radon-Nikodym theorem
forbidden_tool = the axiom of choice | complex analysis | homology | measure theory
extension = infinite-dimensional spaces | p-adic fields | the noncommutative case | sigma-finite measures
process = martingale difference sequence | stationary ergodic process | supercritical branching process | random walk on
  Z^d
functional = the empirical distribution function | the normalised partial sums | the maximal function | the local time
combinatorial = the number of set partitions of n | the number of labelled acyclic digraphs | the longest increasing
  subsequence | the number of lattice animals | the chromatic number of G(n, 1/2)
asymptotic_tool = the saddle-point method | singularity analysis | the second moment method | Stein's method
poem_subject = autumn leaves | my cat | the sea at night | fresh bread | the first snow | an old bicycle | my garden
audience = children | my best friend | a greeting card | my grandparents | my class
funny = funny | sweet | short | cheerful
relative = sister | dad | grandmother | best friend | little brother | uncle | mum
small_business = bakery | dog walking service | flower shop | coffee van | hair salon | bike repair shop | book café
social = Instagram | Facebook | TikTok | Twitter
recipient = boss | teacher | neighbour | landlord | team
small_news = I am ill today | I will be ten minutes late | the party starts at seven | the parcel has arrived
job = marketing assistant | junior accountant | nurse | warehouse manager | graphic designer | museum guide
employer = a family business | a large hospital | a young start-up | a charity | an airline
experience = three years of experience in another field | just finished university | been away from work for two years
blog_subject = slow travel by train | growing vegetables on a balcony | working from home with children | learning the
  piano at forty | second-hand fashion
readers = beginners | busy parents | young professionals | retired people
character = a retired detective | a lighthouse keeper | a young chef | a night bus driver | a mayor | a shy librarian
plot = finds a letter that was never sent | meets an old rival | has to keep a promise | misses the last train home |
  inherits a house nobody wants
occasion = a wedding | a school leaving party | the opening of a museum | a retirement
genre = crime | fantasy | romance | historical
strict_form = villanelle | Petrarchan sonnet | sestina | pantoum | crown of sonnets | double ballade
theme = the erosion of memory | inherited guilt | exile and return | the ethics of witness | the failure of language
acrostic = initials spell an acrostic | end-words recur in a fixed permutation | caesurae fall on an enjambed clause |
  volta inverts the opening metaphor
narrator = an unreliable narrator | a chorus in the first person plural | a narrator addressing the dead | a free
  indirect consciousness
author = Virginia Woolf | W. G. Sebald | Marcel Proust | Clarice Lispector | James Baldwin | Thomas Bernhard
motif = salt | broken clocks | migrating birds | unlit windows | tidal water
country = Portugal | Kenya | Japan | Brazil | Norway | Egypt | Canada | Vietnam | Peru | Poland | Ghana | Nepal | Mexico
  | Ireland | Turkey | Chile | Finland | Indonesia | Morocco | Hungary | Jordan | Mongolia | Uruguay | Iceland
famous_deed = wrote Pride and Prejudice | painted the Mona Lisa | invented the telephone | discovered penicillin | was
  the first person on the Moon | composed the Four Seasons | built the pyramids | wrote Romeo and Juliet
measure = tall | old | big
landmark = the Eiffel Tower | Mount Everest | the Great Wall of China | the Colosseum | Big Ben | Niagara Falls | Machu
  Picchu
animal = giant pandas | polar bears | koalas | hedgehogs | blue whales | flamingos | African elephants | emperor
  penguins
device = the refrigerator | the steam engine | the printing press | the telegraph | the nuclear reactor | the magnetic
  compass | the mechanical clock | the light bulb
event = the French Revolution | the First World War | the fall of the Roman Empire | the Black Death | the Cold War |
  the Great Depression | the Thirty Years' War | the Industrial Revolution | the Reformation
science_pair = weather and climate | fission and fusion | bacteria and viruses | mitosis and meiosis | comets and
  asteroids | igneous and sedimentary rock | RNA and DNA | speed and velocity | alternating and direct current |
  hurricanes and tornadoes | a virus and a prion | latitude and longitude | stalactites and stalagmites | mass and
  weight
region = Western Europe | the Mediterranean | the countryside | the large cities | Italy | France
thesis = structural demographic pressure | the primacy of domestic politics | climatic shock | elite overproduction |
  technological determinism | the contingency of individual decisions
mechanism = V(D)J recombination | long-term potentiation | CRISPR interference | mitochondrial ATP synthesis | genomic
  imprinting | prion propagation | quorum sensing | nonsense-mediated decay | RNA splicing | allosteric haemoglobin
  binding
open_question = the Hubble tension | the nature of dark matter | the neutrino mass ordering | cosmic inflation | the
  primordial lithium problem | the equation of state of dark energy | the epoch of reionization
instrument = gravitational-wave interferometry | cosmic microwave background polarimetry | weak gravitational lensing |
  high-resolution quasar spectroscopy | a baryon acoustic oscillation survey | 21-centimetre tomography
phrase = good morning | thank you very much | where is the station? | how much does this cost? | see you tomorrow | I
  would like a coffee, please | happy birthday | I am lost | nice to meet you | the bill, please
tongue = Spanish | French | German | Italian | Portuguese | Dutch | Swedish | Turkish
second_tongue = Japanese | Polish | Greek | Hindi
household = butter | umbrella | bridge | kitchen | breakfast | window | spoon | grandmother
small_count = ten | five | twenty | twelve | six
email = Thank you for your order. Unfortunately the blue jacket is out of stock until May. | We would like to move our
  meeting to Thursday, since two colleagues are travelling. | I am writing to ask about the flat you advertised last
  week. | Could you send us the signed form before the end of the month? | Please find attached the invoice for our
  repairs.
idiom = the early bird catches the worm | don't count your chickens before they hatch | when in Rome, do as the Romans
  do | to kill two birds with one stone | a storm in a teacup | it's raining cats and dogs | every cloud has a silver
  lining
chat = sorry mate, running late again, save me a seat! | guess who just got the job?! drinks are on me tonight | no
  worries, we'll sort it out at the weekend | honestly the film was a bit rubbish but the popcorn was great | can't wait
  to see you all | wow, your new place looks amazing, when's the party?
guide_text = The old town lies on a hill above the river and is best seen on foot. | The night market opens at six and
  is known for grilled fish. | Buses leave every hour from the square in front of the cathedral.
register = plain | formal | everyday | modern
verse = Shall I compare thee to a summer's day? Thou art more lovely and more temperate. | Because I could not stop for
  Death, He kindly stopped for me. | Tyger Tyger, burning bright, In the forests of the night | My heart aches, and a
  drowsy numbness pains my sense | Season of mists and mellow fruitfulness, Close bosom-friend of the maturing sun
clause = The indemnifying party shall hold harmless the indemnitee from any and all liabilities howsoever arising, save
  for wilful misconduct. | Time shall be of the essence, and any forbearance shall not operate as a waiver. | This deed
  shall be construed in equity as a floating charge over the undertaking. | The trustee shall stand possessed of the
  residue upon trust for the beneficiaries per stirpes.
scholarly = phenomenology | hermeneutics | psychoanalysis | deconstruction | political theology
dense = The given is never simply given: what appears as immediate is already mediated by the concepts under which it is
  apprehended, so that any appeal to it presupposes what it was meant to ground. | If obligations supervene on
  attitudes, and attitudes answer to reasons that obtain independently of them, then supervenience cannot be
  constitutive without rendering those reasons idle. | Sovereignty, in so far as it decides upon its own limit, is
  neither within the legal order nor without it, and every theory that places it loses its object. | To explain a
  practice by its function is to explain nothing unless one shows a mechanism by which the benefit sustains the
  practice, and such mechanisms, where they exist, make the functional idiom dispensable.
wordplay = Time flies like an arrow; fruit flies like a banana. | Ask for me tomorrow, and you shall find me a grave
  man. | We must all hang together, or most assuredly we shall all hang separately. | Seven days without a pun makes one
  weak. | Now is the winter of our discontent made glorious summer by this sun of York.
friend = Ivan | Julia | Karl | Lena | Mia | Noah
third = Olivia | Peter | Rosa | Sam | Tara | Victor
odd_one_out = apple, banana, carrot, pear | car, bus, bicycle, chair | dog, cat, rose, horse | red, blue, seven, green |
  piano, violin, hammer, flute | Monday, Friday, April, Sunday | sock, shoe, boot, spoon | lake, river, candle, ocean
weekday = Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
days_ago = three days ago | the day before yesterday | ten days ago | a week ago yesterday | eight days ago
kinship = parent | elder cousin | grandparent | godparent | twin
group = gardeners | pilots | bakers | sailors | drummers | poets
quality = patient | honest | brave | tidy | tall
furry = cat | dog
knave_claim = we are both knaves | exactly one of us is a knight | at least one of us is a knave | we are the same
knave_reply = that is a lie | I am a knight | I would say the same | you would deny it
other_group = teachers | singers | farmers | dentists
jugs = a 3-litre and a 5-litre jug | a 4-litre and a 9-litre jug | a 5-litre and an 8-litre jug | a 7-litre and a
  10-litre jug | three unmarked jugs of 3, 5 and 8 litres
litres = 1 | 2 | 4 | 6
bridge_times = 1, 2, 5 and 10 | 1, 3, 6 and 8 | 2, 3, 7 and 9 | 1, 4, 5 and 12 | 2, 4, 6 and 11
bridge_question = What is the shortest total time? | Who should carry the torch back each time? | Can they do it in 20
  minutes? | Why is it not always best to send the fastest back?
seat = at one end | in the middle | not at an end | to the left of everyone else
logic = first-order logic | modal logic S5 | deontic logic | second-order logic | intuitionistic logic
premises = Every agent who knows a rule is bound by some rule that no one knows; hence some rule binds no one. |
  Whatever is possible is permitted unless it is necessarily regretted, and nothing is; so what is necessary is
  permitted. | No set of norms is complete, yet every conflict of norms is decidable; hence some norm is redundant. |
  Only those who doubt all who doubt themselves are trusted by anyone; nobody trusts himself.
n_logicians = n | countably many | one hundred | infinitely many
hats = hats of k colours | natural numbers on their foreheads | consecutive integers | bits of a hidden codeword
announce = at least one of you is marked | your numbers are pairwise distinct | the parity is even | not everyone can
  know yet
equilibrium = subgame-perfect equilibria | trembling-hand perfect equilibria | Bayesian Nash equilibria | correlated
  equilibria | evolutionarily stable strategies
players = three players | asymmetrically informed bidders | n identical firms | two impatient players
game = bargain with alternating offers | contribute to a threshold public good | choose capacities and then prices |
  signal hidden types at a cost
perturbation = payoffs are perturbed | commitment is impossible | private signals are correlated | the horizon is
  uncertain
causal_graph = X and Y share an unobserved confounder and a mediator is measured | a collider between X and Y is
  conditioned on | the instrument has a direct path to Y | treatment is time-varying with feedback | selection depends
  on Y
causal_data = observational data alone | two surrogate experiments | a selection-biased sample | an imperfect proxy
paradox = Newcomb's problem | the surprise examination paradox | the sorites paradox | the Sleeping Beauty problem | the
  two-envelope paradox | Curry's paradox
short_form = one sentence | a few words | ten words | a headline | one short line
note = Hi, the plumber came, but he needs a new part, so the sink will only be fixed on Friday. Please use the bathroom.
  | Mum's train is late. She gets in at eight, and I will pick her up, so start dinner without us. | Football is
  cancelled because the pitch is flooded. We meet at the sports hall instead, and please bring indoor shoes. | I left
  the keys with the neighbour. The cat has been fed, the bins go out tonight and the plants need water. | The school
  trip costs twelve pounds. Please send a packed lunch and a raincoat, we are back at four.
product = kettle | backpack | headphones | desk lamp | vacuum cleaner
review = It looks nice and it arrived quickly, but it broke after two days and nobody answers my emails. | I was not
  sure at first, but now I use it every day, and it was worth every penny. | It works well enough, though it is louder
  than I expected.
local_news = The library will close for repairs from June to August. Books can be returned at the town hall. | A lost
  dog was found safe in the park after three days. The owner thanked everyone who helped. | The swimming pool has a new
  slide, and tickets stay the same price this summer. | The number 12 bus will no longer stop at the hospital. A shuttle
  runs instead. | Volunteers planted two hundred trees along the river, and they plan to do the same next year.
bullet_form = three bullet points | a short paragraph | five key points | a table with two columns
summary_reader = a newsletter | a busy manager | my students | people abroad
minutes = The team reviewed the spring campaign. Sales rose by nine percent, but returns doubled. Marketing will test
  two new banners, and finance asked for a cap on discounts. | We discussed the office move. The lease ends in March,
  two sites were visited, and the larger one is above budget. Facilities will get a second quote. | The release slipped
  by two weeks because of the payment bug. Support will write to the affected customers, and we freeze new features
  until it is solved.
article = The council voted nine to six to close the old bridge to cars from next spring. Shop owners fear losing
  customers, while cyclists and the bus company welcome the plan, which costs four million and will be reviewed after a
  year. | Farmers in the valley harvested a third less wheat after the driest May on record. Prices have risen, and the
  ministry is considering subsidies for new wells, which environmental groups oppose. | The hospital has cut waiting
  times by a quarter since it opened an evening clinic, but nurses warn that staffing will not last through the winter.
  | Museum attendance is back to what it was five years ago, led by free evenings for under-25s. Directors want to
  extend them, but the fund that pays for them ends next June.
article_more = A survey of 1,200 residents found that opinions are split by age. | The opposition has called for an
  inquiry. | Similar plans elsewhere had mixed results. | Final figures will be published in autumn.
interview = We started in a garage with two ovens and no money, says the founder. The hardest part was hiring. Today we
  employ forty people and bake for half the city. | I never planned to be a coach, she says. An injury ended my career,
  and a friend asked me to help with the juniors. Losing taught me more than medals. | Touring is tiring, the singer
  admits, but the new album was written on buses, and you can hear it.
thread = Maria: who books the room? Tom: I can, but I need the number of guests. Maria: about thirty, I will confirm. |
  Lee: the quote has gone up by 400. Kim: can we ask the other supplier? Lee: yes, but they need two weeks. | Sara: the
  poster has the wrong date! Paul: the printer says it is too late. Sara: then we need stickers.
expert_form = a structured abstract | a two-sentence précis | a formal argument map | an executive brief
expert_reader = a systematic reviewer | an appellate judge | a sceptical statistician | a doctoral committee | a
  regulator
abstract = In a cluster-randomised trial of 84 clinics, the intervention reduced 30-day readmission (OR 0.81, 95% CI
  0.67-0.98), but the effect vanished under an instrumental-variable analysis that adjusts for differential attrition. |
  Using a regression discontinuity at the eligibility threshold, we estimate a local effect of 0.12 SD on attainment;
  bunching tests do not reject manipulation of the running variable. | A preregistered meta-analysis of 41 studies finds
  a pooled effect of d = 0.34, which falls to d = 0.09 after correction for selective reporting, with substantial
  heterogeneity (I2 = 78%). | A double-blind crossover trial (n = 212) reports a hazard ratio of 0.74 for progression,
  driven by a subgroup that was not prespecified; competing risks were handled by cause-specific models. |
  Difference-in-differences estimates imply an employment elasticity of -0.15, although pre-trends diverge once
  commuting zones are weighted by population.
abstract_reply = A reanalysis with the original microdata attributes the estimate to a coding error and to
  post-treatment conditioning. | A replication in 12 countries fails to reject the null, yet its equivalence bounds are
  wide. | Simulations show that the estimator is inconsistent under staggered adoption with heterogeneous effects. | A
  Bayesian hierarchical model of the same data shrinks the effect towards zero, though the prior is contested. | An
  independent cohort finds an effect of opposite sign once immortal time bias is removed.
judgment = The appellant contends that reliance was reasonable notwithstanding the disclaimer. We hold that a duty
  arises where responsibility is voluntarily assumed; whether mere omission suffices need not be decided. | The statute
  is silent on retroactivity. Absent clear words, vested rights are preserved, although we doubt, without deciding, the
  reasoning of the court below on severability. | The injunction cannot stand, for damages were adequate; we add that
  proportionality might well have led to the same end. | Construed purposively, the exclusion does not bite on
  negligence. We would in any event have found the term unreasonable, but that question does not arise and we express no
  concluded view.
cook = cook | bake | prepare | make
meal_guest = a quick dinner tonight | two hungry teenagers | a picnic on Sunday | my vegetarian friend | a lazy
  breakfast | a birthday party | guests who don't eat fish | a cold winter evening | lunch at the office | a first date
hobby = gardening | cycling | cooking | reading | fishing | board games | music | knitting
small_habit = fall asleep faster | drink more water | keep my desk tidy | wake up early | remember names | stop biting
  my nails | spend less time on my phone | save on groceries | feel less nervous before exams | walk more
pick = film | holiday spot | podcast | hobby | board game | magazine
event_to_dress = a job interview | a summer wedding | a hike in the rain | a first date | a school concert | a funeral |
  an office party | the opera | a barbecue
life_step = a half marathon | my driving test | a move to another city | a salary negotiation | a language exam
weeks = three | six | eight | ten | twelve
difficult_person = flatmate | colleague | mother-in-law | neighbour | manager | teenage son | business partner
annoyance = never does a fair share of the work | plays loud music late at night | keeps borrowing money | takes credit
  for my ideas | cancels plans at the last minute | criticises how I raise my children
salary = 1,800 euros | 2,400 dollars | 3,000 pounds | 2,100 euros | 3,500 dollars | 2,700 pounds
money_goal = pay off my credit card within a year | save for a deposit on a flat | take six months off to travel | buy a
  used car without a loan
change = changing careers at thirty-five | moving in with my partner | going back to university | adopting a dog |
  working freelance | moving abroad for two years
worry = the money | losing touch with my friends | my age | the time it takes | what my parents think
dilemma = accept a post abroad | take over the insolvent family firm | report my supervisor's misconduct | sell my
  shares before a merger | contest a will
complication = a custody agreement binds me to this country | my partner needs chronic medical care | my visa depends on
  my employer | a sibling is suing the estate
complication_start = A custody agreement ties me to two jurisdictions | I am the guardian of a disabled parent | My
  equity vests in tranches and triggers exit tax | I am a whistleblower under a confidentiality order
constraint = a non-compete clause is being litigated | a pension entitlement would lapse | a tax residency rule applies
  from January | disclosure could breach fiduciary duty
leader = chief executive | chair of the board | trustee | head of compliance
organisation = a hospital trust | a family-owned manufacturer | a charity with an endowment | a listed software company
crisis = safety data were falsified before I was appointed | a covenant breach is imminent and undisclosed | our largest
  donor is under criminal investigation | a regulator is about to audit a known liability
family_conflict = the heirs dispute the founder's capacity | two generations disagree on succession | one spouse
  conceals assets
leader_dilemma = resign in protest | disclose at once against legal advice | negotiate a confidential settlement | wait
  for the external investigation
second_country = Spain | Argentina | Thailand | Sweden | Nigeria | Australia
angle = its evolutionary origin | its regulation | its failure in disease | its energetics | its fidelity under stress |
  its pharmacological inhibition
meal_time = on weekdays | when I am tired | with little money | with two small children | in winter
things_at_home = eggs and potatoes | rice and a few vegetables | half an hour | a small oven | a slow cooker
"""

WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(" ".join(word.split()) for word in words.split("|"))
    for name, words in (entry.split(" = ", 1) for entry in re.split(r"\n(?! )", _LISTS.strip()))
}
