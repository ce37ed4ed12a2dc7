"""The CDK app: reads the settings and makes the stacks. `cdk synth` runs it, and so does `python app.py`."""

import os
import sys
from pathlib import Path

from cdk.node import provide_node

provide_node()  # before the first import of aws_cdk

from aws_cdk import App  # noqa: E402

from cdk import layers, service, settings  # noqa: E402

ROOT = Path(__file__).resolve().parent

app = App(context=dict(service.CONTEXT), analytics_reporting=False)
try:
    declared = settings.load(service.settings_path(app, os.environ, root=ROOT))
    service.assemble(app, declared, root=ROOT)
except (settings.SettingsError, layers.LayerError) as error:
    sys.exit(str(error))
app.synth()
