"""The figures of a study: ``registry`` lists them, ``draw`` draws one."""
