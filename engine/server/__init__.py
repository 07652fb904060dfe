"""
Explanations over HTTP: a small FastAPI application around the engine.

::

    bytes --bodies--> body --infer | instances | plain--> Ask --scheduler--> Explanation --the same three--> answer
            (limits)           (three protocols)               (admission, batches, deadlines)

`asks.py` holds what all protocols come down to, `faults.py` which error is which status, `settings.py` every limit,
`registry.py` the models that are served, `app.py` the routes, `serving.py` the process. Nothing outside this folder
knows of it. The extra ``serve`` brings what it needs.
"""
