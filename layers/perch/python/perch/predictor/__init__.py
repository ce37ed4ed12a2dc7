"""The data plane: load a verified model once, then decode, infer, encode. No AWS call on the request path.

    init      pointer (environment) → fetch (S3) → verify (size, SHA-256) → runtime loads → one row of zeros to warm it
    request   event → route → decode → check → cache or model → answer → one log line that carries the metrics

A revision that has no model, or whose model cannot be verified or loaded, answers 503 with the reason: it does not
crash, so that its probe can report why.

    handler                                what Lambda calls: both phases, put together
    startup · wanted · s3 · fetch · verify · loading · restore
                                           the init phase, and what is made anew after a snapshot of it
    runtimes/                              what runs each format, imported only by the function that needs it
    routes · operations                    which path asks for what, and what is done about it
    body · decode · records · protocol · tensors
                                           from a body to the model's inputs, in our words, MLflow's or the protocol's
    interface · limits                     what inputs a model takes, and which values its author declared
    variants · identity                    which model answers, when there are several, and who asks
    infer · answer · encode                from the model's outputs to a body
    cache · shared_cache                   outputs that are given again
    journal · telemetry · prediction · capture
                                           the log line, its metrics, and requests to be replayed
    server · openapi · schemas             what a server says of itself
    serve/                                 the same behind an HTTP server of its own, outside Lambda
    torch_layers                           layers that torch does not have and a served architecture may use
"""
