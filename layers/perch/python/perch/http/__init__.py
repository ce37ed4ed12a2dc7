"""HTTP/1.1 for those who serve: the predictor's own server, and the gateway of the local cloud.

    connection    bytes to requests, answers back in order; sizes and times are bounded
    answer        what goes over the wire

Who answers, and in what words a request is refused, is the service's own (`connection.Service`). Left out: HTTP/2, TLS,
WebSocket (a request to upgrade is served as if it had not asked), bodies that are streamed.
"""
