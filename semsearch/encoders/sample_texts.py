"""Texts of many kinds, to see which values a model's activations take before they are rounded to 8 bits.

Fixed, so that a model is rounded in the same way on every machine.
"""

from __future__ import annotations

__all__ = ["CHECKING_TEXTS", "MEASURING_TEXTS", "SAMPLE_QUERY"]

SAMPLE_QUERY = "how is a ship's log kept when the harbour is closed?"

_TEXTS = (
    "The harbour master keeps two logs. In the first he writes every ship that comes in, her draught, her cargo"
    " and the hour; in the second, which nobody reads, he notes what the crew said about the weather on the way."
    " When the archive burnt in 1911 only the second was saved, and so we know that the winter before had been"
    " mild, that fog lay on the estuary for nine days in March, and that a pilot named Ferrars refused to go out"
    " on the tenth.",
    "To undo the last commit but keep its changes in the working tree, move the branch back by one and leave the"
    " index alone. If the commit has been pushed already, write a new one that reverses it instead: others may"
    " have built on it. Options: --soft keeps the index, --mixed (the default) resets it, --hard throws the"
    " changes away.",
    'def moving_average(values, width):\n    """Mean of each window of `width` values."""\n    if width <'
    ' 1:\n        raise ValueError(f"width = {width}: give at least 1")\n    total = 0.0\n    window = deque()'
    "\n    for value in values:\n        window.append(value)\n        total += value\n        if len(window) >"
    " width:\n            total -= window.popleft()\n        yield total / len(window)\n",
    "SELECT c.name, count(*) AS orders, sum(o.total) AS revenue FROM customers c LEFT JOIN orders o ON"
    " o.customer_id = c.id WHERE o.placed_at >= '2024-01-01' GROUP BY c.id HAVING revenue > 1000 ORDER BY revenue"
    " DESC LIMIT 20;",
    "Patients were assigned at random to 40 mg of the drug or to placebo for twelve weeks. Mean systolic pressure"
    " fell by 11.2 mmHg (95 % CI 8.9 to 13.5) in the treated group and by 2.1 mmHg in the control group (p <"
    " 0.001). Nausea was the most frequent adverse event (14 % against 6 %); three patients withdrew. Serum"
    " creatinine did not change.",
    "what is the difference between a process and a thread",
    "| region | 2021 | 2022 | 2023 |\n|---|---:|---:|---:|\n| north | 1,204 | 1,377 | 1,512 |\n| south | 988 |"
    " 940 | 1,003 |\n| east | 2,310 | 2,295 | 2,480 |\n| west | 415 | 502 | 618 |\n\nFigures in thousand tonnes;"
    " 2023 is provisional.",
    "An aerofoil at a high angle of attack sheds vortices from its leading edge. The pressure on the upper"
    " surface was measured at 24 stations for Mach numbers from 0.6 to 1.8 and compared with the slender-body"
    " theory, which underestimates lift once the boundary layer has separated. Heat transfer at the stagnation"
    " point follows the square root of the nose radius.",
    "Refund policy. Items may be returned within 30 days of delivery if they are unused and in their original"
    " packaging. Shipping is not refunded. To start a return, sign in, open Orders, choose the item and print the"
    " label. Refunds are paid to the card that was used, usually within ten working days. Gift cards, downloads"
    " and opened software cannot be returned unless they are faulty.",
    "Error 13: permission denied: '/var/lib/service/data.lock'\n  at open (core/files.c:212)\n  at acquire"
    " (core/lock.c:57)\nHint: the service runs as user 'svc'; check the owner of the folder with ls -l, or start"
    " it with --data-dir.",
    "Die Sitzung wurde um neun Uhr eröffnet. Der Ausschuss prüfte zuerst den Haushalt des vergangenen Jahres und"
    " fand keine Beanstandungen; danach wurde über die Sanierung der Brücke beraten, deren Kosten sich seit dem"
    " ersten Entwurf verdoppelt haben. Ein Beschluss wurde auf die nächste Sitzung vertagt.",
    "上传文件时，服务器先检查大小和类型，再把内容写入临时目录；全部完成之后才改名。如果中途断开，下次启动会清理残留的文件。",
    "Le boulanger se lève à trois heures. Il pétrit la pâte, la laisse reposer, façonne les pains et les enfourne"
    " ; à six heures, quand la boutique ouvre, l'odeur est déjà dans toute la rue.",
    "import { createServer } from 'node:http';\n\nconst server = createServer((request, response) => {\n  if"
    " (request.method !== 'GET') {\n    response.writeHead(405).end();\n    return;\n  }"
    "\n  response.setHeader('Content-Type', 'application/json');\n  response.end(JSON.stringify({ ok: true, path:"
    " request.url }));\n});\nserver.listen(8080);",
    "Chapter 7\n\nShe had not expected the letter. It lay on the mat with the bills, addressed in a hand she knew"
    ' at once, and for a while she only looked at it. "You might open it," said her brother. "I might," she'
    " said, and put it in her pocket, and went out to the garden where the beans wanted tying up.",
    "vitamin d deficiency symptoms in adults",
    "Installing from source requires a C compiler, CMake 3.20 or newer and about 2 GB of disk space.\n\n1. Unpack"
    " the archive.\n2. Run `cmake -B build -DCMAKE_BUILD_TYPE=Release`.\n3. Run `cmake --build build -j4`.\n4. As"
    " root, run `cmake --install build`.\n\nSet PREFIX to install elsewhere. On macOS the compiler comes with the"
    " developer tools; on Windows use the prompt that the compiler's installer has added to the start menu.",
    "Libraries catalogue books under subject headings from a controlled vocabulary. Readers search in their own"
    " words, and the two seldom agree; relevance feedback, in which the reader marks a few titles and the system"
    " looks for more of the same, raised recall in our tests from 0.41 to 0.58 at equal precision. Indexers"
    " disagreed with each other in a third of all assignments.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. The light reactions take place"
    " in the thylakoid membranes and make ATP and NADPH; the Calvin cycle in the stroma uses both to fix carbon."
    " C4 plants such as maize concentrate carbon dioxide in bundle-sheath cells and so lose less water.",
    "class Stack<T> {\n    private final Deque<T> items = new ArrayDeque<>();\n\n    public void push(T item) {"
    " items.addFirst(Objects.requireNonNull(item)); }\n\n    public T pop() {\n        if (items.isEmpty()) throw"
    ' new NoSuchElementException("the stack is empty");\n        return items.removeFirst();\n    }\n}',
    "GET /v2/users/{id}/sessions?limit=50&after=eyJpZCI6MTIzfQ HTTP/1.1\nHost: api.example.org\nAuthorization:"
    " Bearer <token>\nAccept: application/json\n\nHTTP/1.1 200 OK\nContent-Type: application/json"
    '\nX-RateLimit-Remaining: 4999\n\n{"items": [{"id": 124, "started": "2024-05-06T07:08:09Z",'
    ' "agent": "cli/1.4"}], "next": null}',
    'The parties agree as follows. 1.1 "Confidential Information" means any information that a party discloses,'
    " in any form, and that a reasonable person would understand to be confidential. 1.2 The receiving party"
    " shall not disclose it to third parties, shall use it only for the Purpose, and shall return or destroy it"
    " on request. 2.1 This agreement is governed by the law of the seat of the disclosing party.",
    "La sesión comenzó con retraso porque el proyector no funcionaba. Después se presentaron los resultados de la"
    " encuesta: siete de cada diez vecinos prefieren el tranvía, y solo una minoría apoya el aparcamiento"
    " subterráneo.",
    "Заседание открылось в девять часов. Сначала обсуждали бюджет, потом ремонт моста; решение отложили до"
    " следующей недели.",
    "the the the the of of of and and , , , . . . 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 ==== ----"
    " #### ****",
    "A current in a coil makes a magnetic field; a change of that field makes a voltage which opposes the change."
    " The inductance of a long solenoid grows with the square of the number of turns. At high frequencies the"
    " current flows near the surface of the wire, so litz wire or tubing is used, and the stray capacitance"
    " between turns limits the useful range of the amplifier.",
    "python read csv file skip first row",
    "Q: My sourdough does not rise. What am I doing wrong?\nA: Most often the starter is too young or the kitchen"
    " too cold. Feed it twice a day for a week, keep it near 25 °C, and use it when it has doubled. Weigh flour"
    " and water; cups are too inexact. If the crumb is gummy, bake longer at a lower heat.",
    "0x7ffd3a2c 48 8b 05 c1 2e 00 00 mov rax, qword ptr [rip + 0x2ec1]\n0x7ffd3a33 48 85 c0 test rax, rax"
    "\n0x7ffd3a36 74 0e je 0x7ffd3a46\nsha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "The treaty of 1963 banned tests in the air, under water and in space, but not below ground. Seven years of"
    " talks had failed over inspections; seismographs, which by then told explosions from earthquakes at most"
    " distances, made a partial ban possible. Two of the powers did not sign.",
)


def _with_long_ones(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts, and all of them joined, from each third one on: those reach every position that a model has."""
    return texts + tuple("\n\n".join(texts[i:] + texts[:i]) for i in range(0, len(texts), 3))


MEASURING_TEXTS = _with_long_ones(_TEXTS[::2])
CHECKING_TEXTS = _with_long_ones(_TEXTS[1::2])
