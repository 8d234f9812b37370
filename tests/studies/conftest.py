"""What the tests of studies share: every figure in the notebooks' style, closed again, and its title."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from routing.studies.plotting import set_style


@pytest.fixture(autouse=True)
def styled():
    with matplotlib.rc_context():
        set_style()
        yield
    plt.close("all")


def title(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")
