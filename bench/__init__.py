"""
What camrt costs, side by side with the floor and with its peers: ``python -m bench``.

::

    __main__ --suites--> gradient  threads  memory  start --figures--> report --> table, JSON, README rows
                            |         |        |
                            +---- wire: one worker process for each library, calls timed on request
                            +---- contest: the libraries take turns; a figure is a ratio within one turn

A machine's load and clock drift, so nothing is compared across runs: within a round every contender is timed once,
the next round goes the other way round, and a ratio's spread over the rounds is printed beside its median.

Apart from the suites, ``python -m bench.gpu_first OUT.json`` tries on a machine with a GPU what could not be tried without.
"""
