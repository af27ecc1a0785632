"""A person's answers in the place of labels: which of two embedders finds the same thing?

`make.ask` writes a page of pairs of photos, `answers.compare_answers` turns what was answered into
a difference in precision at 1 with its interval.
"""
