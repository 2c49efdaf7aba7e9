"""Outside tools that retraining may be handed to: Airflow, Kubeflow Pipelines, Jenkins, MLflow.

Each is a module of its own behind an optional extra. What starts a pipeline implements
``gateway.monitor.actions.Run``: one attempt for an ``Episode``, bounded in time, whose id is the
key by which the tool is not started twice. ``app.py`` gives its type to ``read_action``, and
``[actions.NAME]`` of the operator's file may have it.
"""
