"""Import what takes seconds, in a process that forks, so that its copies have it."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from service.process import prepare_process

prepare_process()  # before OpenVINO is imported
for _module in (
    "openvino.tools.ovc",
    "openvino.frontend.pytorch.ts_decoder",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
):
    with suppress(ImportError):  # of an extra that is not installed
        import_module(_module)
