#!/bin/sh
# One image, two ways to run: under Lambda's runtime where there is one, and as an HTTP server everywhere else.
# exec, so that SIGTERM reaches the process that can stop gracefully.
if [ -z "$AWS_LAMBDA_RUNTIME_API" ]; then
    exec python3 -m perch.predictor.serve
elif [ -x /lambda-entrypoint.sh ]; then # AWS's base images
    exec /lambda-entrypoint.sh "$@"
else
    exec python3 -m awslambdaric "$@"
fi
