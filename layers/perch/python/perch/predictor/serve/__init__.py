"""The same predictor outside Lambda: one handler behind a plain HTTP server, for containers and for a laptop.

    python -m perch.predictor.serve

    supervisor ─► one worker a processor, all on one port        a worker that dies is replaced
    worker      ─► perch.http.connection ─► exchange (request to event) ─► the handler, on one thread
                                                                     └─► exchange (answer to bytes)

The event that reaches the handler is API Gateway's (payload format 2.0), except that its body is bytes and needs no
base64, so paths, answers and log lines are those of Lambda. One thread runs the model, one request after the other as
in Lambda; the loop beside it always has time for health checks, slow clients and signals.

`settings` lists the environment variables; `local_file` serves a model file without a store; `files` says how many
clients there are files for. Left out: TLS and HTTP/2 (the load balancer's), batching across requests.
"""
