"""English function words and the forms that questions are wrapped in: they say nothing of what is sought.

Verbs such as *get*, negation, conditions and quantifiers are not among them: in *while loop*, *not null*, *get any key*
they are what is sought, and where they are not, BM25 weighs them low for being common.
"""

from __future__ import annotations

__all__ = ["STOP_WORDS"]

_WORDS = """
a about above after again against almost also although am among an and anyone anything are aren as at be because been
before being below between both but by can cannot could couldn did didn do does doesn doing don down during either ever
few for from further had hadn has hasn have haven having he hence her here hers herself him himself his how however i
in instead into is isn it its itself just ll many may me might mine more most much must my myself neither nor now of
off often on once one only onto or other others ought our ours ourselves out over own per perhaps please rather re s
same shall she should shouldn since so some somehow someone something such t than that the their theirs them themselves
then there therefore these they this those though through thus to too toward towards under until up upon us ve very via
was wasn we well were weren what whatever when whenever where wherever whether which who whom whose why will with
within without won would wouldn yes yet you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_WORDS.split())
