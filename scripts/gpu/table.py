"""What was found, as `bar` lines at once and as one table in the end."""


class Table:
    def __init__(self, here):
        self.here = here
        self.rows = []
        self.failed = []

    def bar(self, name, value, limit, least=True):
        """A figure and what it should be at least, or with `least` false at most."""
        good = value >= limit if least else value <= limit
        word = "ok" if good else "short"
        print(f"bar {name} {value:.4g} {limit:.4g} {word}", flush=True)
        self.rows.append((name, f"{value:.4g}", f"{'>=' if least else '<='} {limit:.4g}", word))
        return good

    def check(self, name, value, limit):
        """A bar that must hold: at most `limit`."""
        if not self.bar(name, value, limit, least=False):
            self.failed.append(name)

    def figure(self, name, value, unit):
        """A figure without a bar."""
        print(f"    {name}: {value:.4g} {unit}", flush=True)
        self.rows.append((name, f"{value:.4g} {unit}", "", ""))

    def absent(self, name, why):
        """What could not be measured here."""
        print(f"    {name}: not measured, {why}", flush=True)
        self.rows.append((name, "not measured", why, ""))

    def show(self):
        print()
        print(f"on {self.here.describe()}")
        widths = [max((len(row[column]) for row in self.rows), default=0) for column in range(3)]
        for name, value, limit, word in self.rows:
            print(f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {limit:<{widths[2]}}  {word}".rstrip())
        if self.failed:
            print(f"failed: {', '.join(self.failed)}")

    def code(self):
        return 1 if self.failed else 0
