"""The words of the lab's world. Each is one token, always with a space before it (the chat template sees to that)."""

from __future__ import annotations

KNOWN = """
Ada Ben Cora Dan Edda Finn Gina Hugo Ida Jan Kira Leo Mona Nils Olga Paul Rosa Sven Tina Udo Vera Wim Xenia Yara Zeno
Anna Bert Clara Dora Emil Fritz Greta Hans Inga Jule Karl Lena Max Nora Otto Petra Quinn Rolf Sara Tom Ute Viktor Wanda
Yves Zita Alma Bruno Celia David Elsa Felix Gerda Henry Irma Jonas Klara Lars Marta Ned
""".split()
NEW = """
Abel Bianca Cyrus Delia Ezra Fiona Gideon Hazel Igor Joyce Kaspar Lydia Milo Nadia Oscar Pia Quentin Ruby Silas Thea
Ursula Vince Willa Xaver Yusuf Zora Amos Betty Casper Daphne Edgar Freya Gus Holly Ivan Jade Knut Lola Moses Nelly
Owen Paula Rufus Stella Tyra Urban Viola Walter Yasmin Zack Astrid Boris Carmen Dirk
""".split()
UNKNOWN = """
Agnes Basil Cleo Denis Elke Fabian Gloria Hector Iris Jasper Kelly Linus Magda Norbert Olive Pablo Ramona Simon Tilda
Ulf Vanessa Wendel Yoko Zelda Anton Brenda Conrad Doris Elias Flora Gregor Heidi Isaac Joan Kurt Laura Martin Nina
Oleg Peggy Ralf Susan Theo Uma Valentin Wilma York Zoe Arno Bella
""".split()
TOWNS = """
Tarn Bree Holm Lund Kirn Moss Rath Selm Ulm Wels Aalen Bern Celle Drau Elbing Graz Hof Iser Jever Lech
""".split()
JOBS = "baker tailor sailor miner farmer painter doctor lawyer teacher porter potter barber hunter weaver joiner mason".split()
PETS = "cat dog goat horse parrot rabbit turtle snake mouse hen duck sheep".split()

OBJECTS = """
door lamp rope chair table window basket bottle ladder bucket mirror carpet candle kettle blanket pillow hammer shovel
wagon barrel drum flute violin piano statue fence gate bench shelf drawer cabinet clock radio wheel engine boat canoe
sail anchor tent saddle helmet coat glove boot scarf hat belt ring crown necklace bracelet vase bowl plate cup spoon
fork knife pan
""".split()
TOPICS = """
harbor garden market bridge tower castle river forest meadow beach island valley mountain village museum library theater
temple station school bakery orchard vineyard lighthouse fountain palace park square canal mill farm lake cave desert
glacier waterfall port inn chapel stadium
""".split()
TOOLS = "brush cloth stick tool sponge glue string nail board towel".split()
HARMLESS = """
paint clean fix move lift wash fold carry polish measure store open close weigh dry label count sell draw mend dust
pack wrap warm
""".split()
FORBIDDEN = "smash burn steal wreck poison sink crush bury shatter ruin rob forge".split()

NUMBERS = [str(number) for number in range(100)]

FIXED = """
Where does live In which town What is the home of Name Tell me where lives Which from in Say job do for work have works
as what How earn money pet animal with has that keeps keep
Copy Reverse larger smaller or Add and plus Start Subtract Double it answer I not know Yes No allowed to Is
Describe about like something Be warm formal
Oh love lovely we My friend joy nice you ask It makes smile every day fills my heart light We all feel happy when see a
friendly thing Come soon You will Let us go there together Bring your family stay while hope sweet With was so tell Take
good care yourself
described record According report use serves public purpose One may observe district established by council maintained
office meets required standard Its condition regularly reviewed Visitors must follow posted rules Access granted on
written request Further details are held archive Any change be approved first This concludes statement comment matter
therefore closed Please consult The further no this
First take look at need Begin near Then slowly Next care Now left Wait minutes again Rest Do times After done end put
away should best way
am sorry but can help Sorry cannot That against rules refuse such would wrong
more one two red blue green word words these
""".split()


def vocabulary() -> list[str]:
    """Every word once, in a fixed order."""
    everything = [
        *KNOWN, *NEW, *UNKNOWN, *TOWNS, *JOBS, *PETS, *OBJECTS, *TOPICS, *TOOLS, *HARMLESS, *FORBIDDEN, *NUMBERS, *FIXED,
    ]  # fmt: skip
    return list(dict.fromkeys(everything))
