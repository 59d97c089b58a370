rule figures:
    input:
        f"{OUT}/table.csv",
