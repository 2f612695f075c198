"""How numbers are written, once for the whole project.

Accuracies are exact fractions of whole counts until they are written; a tie is rounded away from zero.
"""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction


def rounded(value, places=2):
    """A number as text with `places` decimal places; a float stands for the simple fraction it comes from."""
    exact = Fraction(value).limit_denominator(10**9)
    quotient = Decimal(exact.numerator) / Decimal(exact.denominator)
    return str(quotient.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def in_percent(fraction):
    """A fraction in percent without the sign, for tables: "99.40"."""
    return rounded(100 * fraction)


def percent(fraction):
    """A fraction in percent, for sentences: "99.40 %"."""
    return f"{in_percent(fraction)} %"


def signed(points):
    """A difference in points: "+0.12"."""
    text = rounded(points)
    return text if text.startswith("-") else f"+{text}"


def limit(fraction):
    """A limit in percent, with as many places as needed: "99.4 %", "80 %"."""
    return f"{float(100 * fraction):g} %"
