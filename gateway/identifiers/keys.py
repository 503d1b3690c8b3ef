"""Check digits: Luhn, and the key of the NIR.

Promises arithmetic only: forms are the callers'.
"""

from __future__ import annotations

__all__ = ["luhn_valid", "nir_key"]

# Corsican departments stand for numbers in the computation only. [spec annuaire §8]
_CORSICA = {"2A": "19", "2B": "18"}


def luhn_valid(digits: str) -> bool:
    """Tell whether the last digit is the Luhn key of the others."""
    if not (digits.isascii() and digits.isdigit()):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = 2 * value if value < 5 else 2 * value - 9
        total += value
    return total % 10 == 0


def nir_key(number: str) -> str:
    """Return the two digits that follow a NIR or NIA of 13 characters: 97 - (number mod 97).

    The caller has checked the form.
    """
    department = number[5:7]
    plain = number[:5] + _CORSICA.get(department, department) + number[7:]
    return f"{97 - int(plain) % 97:02d}"
