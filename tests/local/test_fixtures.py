"""The pytest fixtures for projects that deploy with Perch (`perch.local.fixtures`), used as such a project would."""

from __future__ import annotations

import json

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from examples.digits.train import held_out, train
from perch.local.access import KEY, REGION
from perch.local.cloud import LocalCloud
from perch.local.deploy.deployment import Deployed

pytestmark = pytest.mark.slow


def test_a_project_can_test_its_deployment_from_upload_to_prediction(
    perch_cloud: LocalCloud, perch_deployed: Deployed
) -> None:
    """A model is put into the bucket that the outputs name, minutes pass at once, and the API answers with it."""
    bucket = perch_deployed.output("perch-store", "StoreBucket")
    perch_cloud.client("s3").put_object(Bucket=bucket, Key="models/digits/v1/model.onnx", Body=train("onnx", "v1"))
    before = perch_cloud.clock.now()
    perch_cloud.advance(360)
    address = f"{perch_deployed.output('perch-serving', 'ApiUrl').rstrip('/')}/models/digits/predict"
    body = json.dumps({"features": held_out().features[:2].tolist()}).encode()
    request = AWSRequest("POST", address, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(KEY, KEY), "execute-api", REGION).add_auth(request)
    answer = json.loads(URLLib3Session().send(request.prepare()).content)

    assert (answer["version"], len(answer["predictions"])) == ("v1", 2)
    assert (perch_cloud.clock.now() - before).total_seconds() == pytest.approx(360, abs=1)
