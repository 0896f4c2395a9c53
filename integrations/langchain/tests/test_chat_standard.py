"""LangChain's own unit suite for chat models; it runs where `langchain-tests` is installed."""

import pytest

from langchain_smoothguard import SmoothGuardChatModel

suites = pytest.importorskip("langchain_tests.unit_tests", reason="langchain-tests is not installed")


class TestStandard(suites.ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return SmoothGuardChatModel

    @property
    def chat_model_params(self):
        return {"policy": "builtin"}
