"""What a message may say of an address: tokens and passwords stay out of logs and errors."""

from __future__ import annotations

import re


def bare(text: str) -> str:
    """An href, or a text with URLs in it, without queries, fragments, users and passwords.

    Whatever follows a question mark up to the next space goes, so that the path of a URL without
    its host is served too, as HTTP libraries tell it.
    """
    text = re.sub(r"(?<=://)[^/\s?#]*@", "", text)
    text = re.sub(r"\?\S+", "", text)
    return re.sub(r"(://[^\s#]*)#\S*", r"\1", text)


def in_one_line(error: BaseException, *, characters: int = 200) -> str:
    """What an error says, without what :func:`bare` takes away; its type where it says nothing."""
    text = bare(" ".join(str(error).split()))
    return text[:characters].rstrip(". ") or type(error).__name__
