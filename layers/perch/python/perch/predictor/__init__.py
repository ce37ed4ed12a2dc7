"""The data plane: load a verified model once, then decode, infer, encode. No AWS call on the request path.

    init      pointer (environment) → fetch (S3) → verify (size, SHA-256) → runtime loads → one row of zeros to warm it
    request   event → decode (rows of numbers) → model → answer → one log line that carries the metrics

A revision that has no model, or whose model cannot be verified or loaded, answers 503 with the reason: it does not
crash, so that its probe can report why.

    startup · wanted · fetch · verify · loading
                                           the init phase
    runtimes/                              ONNX and torch, each imported only by the function that runs it
    decode · answer · encode · telemetry · handler
                                           the request path
    torch_layers                           layers that torch does not have and a served architecture may use
"""
