# SPDX-License-Identifier: Apache-2.0
"""Random phrases in German and English: numbers, ordinals, years, dates, times and amounts.

The words come from num2words and, for calendar, currencies and units, from CLDR through babel.
"""

import datetime
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Literal

from babel.dates import format_date, format_timedelta, get_period_id, get_period_names
from babel.numbers import get_currency_name
from num2words import num2words

Phrase = tuple[str, str]
"""The same in German and in English."""

_Unit = Literal["second", "minute", "hour", "day", "week", "month", "year"]

_FIRST_DAY = datetime.date(1900, 1, 1)
_DAYS = 73_000
_CURRENCIES = ("EUR", "USD", "GBP", "CHF", "SEK", "JPY")
# The seconds of each unit of time, and an exclusive upper bound on its count in a phrase.
_UNITS: dict[_Unit, tuple[int, int]] = {
    "second": (1, 60),
    "minute": (60, 60),
    "hour": (3_600, 48),
    "day": (86_400, 100),
    "week": (604_800, 60),
    "month": (2_592_000, 36),
    "year": (31_536_000, 1_000),
}


@cache
def _words(number: int, form: str = "cardinal") -> Phrase:
    german = num2words(number, lang="de", to=form)
    return german, num2words(number, lang="en", to=form).replace(",", "")


def _draw(random: Random, digits: int) -> int:
    """Draws a number from 2 up with at most `digits` digits; short ones are as frequent as long."""
    return random.randrange(2, 10 ** random.randint(1, digits))


def _plural(number: int) -> Phrase:
    """Returns a number before a noun; skips those that end in one, because German inflects them."""
    return _words(number + 1 if number % 100 == 1 else number)


def number(random: Random) -> Phrase:
    """Draws a number: "zwölftausenddreiundzwanzig", "twelve thousand and twenty-three"."""
    return _words(_draw(random, 6))


def ordinal(random: Random) -> Phrase:
    """Draws an ordinal: "zum dreiundzwanzigsten Mal", "for the twenty-third time"."""
    german, english = _words(_draw(random, 3), "ordinal")
    if random.random() < 0.5:
        return f"der {german}", f"the {english}"
    return f"zum {german}n Mal", f"for the {english} time"


def year(random: Random) -> Phrase:
    """Draws a year: "im Jahr neunzehnhundertvierundachtzig", "in nineteen eighty-four"."""
    german, english = _words(random.randrange(1500, 2100), "year")
    return f"im {random.choice(('Jahr', 'Jahre'))} {german}", f"in {english}"


def date(random: Random) -> Phrase:
    """Draws a date, half of them with a year: "am Montag, dem dritten Mai", "on Monday the ..."."""
    day = _FIRST_DAY + datetime.timedelta(days=random.randrange(_DAYS))
    german_day, english_day = _words(day.day, "ordinal")
    german_month, english_month = _calendar_name("MMMM", day.replace(day=1))
    german = f"{german_day}n {german_month}"
    english = f"the {english_day} of {english_month}"
    if random.random() < 0.4:
        weekday = _calendar_name("EEEE", _FIRST_DAY + datetime.timedelta(days=day.weekday()))
        german, english = f"{weekday[0]}, dem {german}", f"{weekday[1]} {english}"
    if random.random() < 0.5:
        year_words = _words(day.year, "year")
        german, english = f"{german} {year_words[0]}", f"{english} {year_words[1]}"
    return f"am {german}", f"on {english}"


@cache
def _calendar_name(pattern: str, day: datetime.date) -> Phrase:
    return format_date(day, pattern, "de"), format_date(day, pattern, "en")


def time(random: Random) -> Phrase:
    """Draws a time: "um halb vier nachmittags" or "um fünfzehn Uhr dreißig", "at half past ..."."""
    hour, minute = random.randrange(24), random.randrange(0, 60, 5)
    german_period, english_period = _day_period(hour)
    english = f"at {_english_time(hour, minute)} {english_period}"
    if random.random() < 0.5:
        return f"um {_spoken_german_time(random, hour, minute)} {german_period}", english
    german = f"um {_german_hour(hour)} Uhr"
    return (f"{german} {_words(minute)[0]}" if minute else german), english


@cache
def _day_period(hour: int) -> Phrase:
    inside = datetime.time(hour, 1)  # on the hour some periods have a name of their own
    german, english = (
        get_period_names("wide", "format", locale)[get_period_id(inside, locale=locale)]
        for locale in ("de", "en")
    )
    return german, english


def _german_hour(hour: int) -> str:
    return "ein" if hour == 1 else _words(hour)[0]


def _spoken_german_time(random: Random, hour: int, minute: int) -> str:
    this, following = (_words(value % 12 or 12)[0] for value in (hour, hour + 1))
    if minute == 0:
        return f"{_german_hour(hour % 12 or 12)} Uhr"
    if minute == 45:
        return f"{random.choice(('Viertel vor', 'drei viertel'))} {following}"
    by_name = {
        15: f"Viertel nach {this}",
        25: f"fünf vor halb {following}",
        30: f"halb {following}",
        35: f"fünf nach halb {following}",
    }
    if minute in by_name:
        return by_name[minute]
    if minute < 30:
        return f"{_words(minute)[0]} nach {this}"
    return f"{_words(60 - minute)[0]} vor {following}"


def _english_time(hour: int, minute: int) -> str:
    this, following = (_words(value % 12 or 12)[1] for value in (hour, hour + 1))
    by_name = {15: "a quarter", 30: "half"}
    if minute == 0:
        return f"{this} o'clock"
    if minute <= 30:
        return f"{by_name.get(minute) or _words(minute)[1]} past {this}"
    return f"{by_name.get(60 - minute) or _words(60 - minute)[1]} to {following}"


def money(random: Random) -> Phrase:
    """Draws an amount: "drei Euro fünfzig" or "drei Euro und fünfzig Cent", "three euros ..."."""
    currency = random.choice(_CURRENCIES)
    german, english = (
        f"{amount} {name}"
        for amount, name in zip(_plural(_draw(random, 5)), _currency(currency), strict=True)
    )
    if currency not in ("EUR", "USD") or random.random() < 0.5:
        return german, english
    german_cents, english_cents = _words(random.randrange(2, 100))
    english = f"{english} and {english_cents} cents"
    if random.random() < 0.5:
        return f"{german} {german_cents}", english
    return f"{german} und {german_cents} Cent", english


@cache
def _currency(code: str) -> Phrase:
    return get_currency_name(code, 2, "de"), get_currency_name(code, 2, "en")


def duration(random: Random) -> Phrase:
    """Draws a duration: "vor drei Tagen", "three days ago"; or "in", "lang", halves, minutes."""
    unit = random.choice(tuple(_UNITS))
    german, english = _plural(random.randrange(2, _UNITS[unit][1]))
    form = random.choice(("ago", "in", "long", "half", "hours and minutes"))
    if form == "ago":
        return _count_of(unit, german, english, direction=-1)
    if form == "in":
        return _count_of(unit, german, english, direction=1)
    if form == "half":
        german_half, english_half = _words(random.randrange(2, 13))
        return _count_of(unit, f"{german_half}einhalb", f"{english_half} and a half")
    if form == "long":
        german, english = _count_of(unit, german, english)
        return f"{german} lang", f"for {english}"
    german_hours, english_hours = _count_of("hour", *_words(random.randrange(2, 25)))
    german, english = _count_of("minute", *_plural(random.randrange(2, 60)))
    return f"{german_hours} und {german}", f"{english_hours} and {english}"


def _count_of(unit: _Unit, german: str, english: str, direction: int = 0) -> Phrase:
    """Returns a number of units: ahead if `direction` is 1, ago if -1, neither if 0."""
    german_pattern, english_pattern = _unit_patterns(unit, direction)
    return german_pattern.format(german), english_pattern.format(english)


@cache
def _unit_patterns(unit: _Unit, direction: int) -> Phrase:
    """Returns CLDR's plural patterns, such as "vor {} Stunden" and "{} hours ago"."""
    two = datetime.timedelta(seconds=2 * (direction or 1) * _UNITS[unit][0])
    german, english = (
        format_timedelta(
            two, unit, threshold=float("inf"), add_direction=direction != 0, locale=locale
        ).replace("2", "{}")
        for locale in ("de", "en")
    )
    return german, english


KINDS: tuple[Callable[[Random], Phrase], ...] = (
    number,
    ordinal,
    year,
    date,
    time,
    money,
    duration,
)
