"""Faults that no national rule sees (proved in the contract tests) are named by our checks, wherever they strike."""

from __future__ import annotations

import pytest

from gateway.documents import frcp, frcp_checks
from tests.frcp_mutations import MUTATIONS, mutated
from tests.report_samples import content, whole


@pytest.fixture(scope="module", params=["full", "whole"])
def document(request):
    return frcp.render(whole() if request.param == "whole" else content())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", MUTATIONS)
def test_our_checks_name_the_fault(document, name, seed):
    root = mutated(document, name, seed)
    assert MUTATIONS[name][0] in {finding.rule for finding in frcp_checks.check(root)}
