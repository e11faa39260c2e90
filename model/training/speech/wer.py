"""Word errors: the fewest insertions, deletions and substitutions between two texts."""

from __future__ import annotations

from model.training.speech.flite import written_words


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Count the errors of `hypothesis` and the words of `reference`.

    Case and the punctuation around words do not count. The word error rate of a set is the sum
    of the first numbers over the sum of the second.
    """
    said = written_words(reference.lower())
    heard = written_words(hypothesis.lower())
    # A worked example: "what is two" heard as "what two". Row by row of the table, with the words
    # heard across:
    #
    #                -   what  two
    #     -          0    1     2
    #     what       1    0     1
    #     is         2    1     1
    #     two        3    2     1
    #
    # One error, a word that was left out. Only one row is ever kept.
    # Source: Wagner and Fischer 1974, "The string-to-string correction problem".
    row = list(range(len(heard) + 1))
    for index, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(heard, start=1):
            substituted = diagonal + (word != other)
            diagonal = row[column]
            row[column] = min(substituted, row[column] + 1, row[column - 1] + 1)
    return row[-1], len(said)
