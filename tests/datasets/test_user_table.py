"""Tables are read as they are, or refused in one line that names the place."""

from datetime import datetime, timedelta

import duckdb
import numpy as np
import pytest

from seqbench.datasets.table import read_table
from seqbench.datasets.time_steps import zone_name
from seqbench.errors import ConfigError, DataError

HOURS = [f"2024-01-{1 + i // 24:02} {i % 24:02}:00" for i in range(60)]


def write(path, rows, header="time,a,b"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def lines(changes=()):
    """Rows of a valid table, some of them replaced."""
    rows = [f"{time},{i},{i / 4}" for i, time in enumerate(HOURS)]
    for row, text in dict(changes).items():
        rows[row - 1] = text
    return rows


def test_csv_and_parquet_give_the_same_table(tmp_path):
    file = write(tmp_path / "t.csv", lines({5: f"{HOURS[4]},NA,?"}), "time,a,größe in m")
    duckdb.read_csv(file, na_values=["NA", "?"]).write_parquet(f"{tmp_path}/t.pq")
    for table in (read_table(file), read_table(f"{tmp_path}/t.pq")):
        assert table.columns == ("a", "größe in m")
        assert table.values.dtype == np.float64
        assert np.isnan(table.values).nonzero()[0].tolist() == [4, 4]
        assert table.values[59].tolist() == [59, 14.75]
        assert (table.time_column, table.time[-1]) == ("time", np.datetime64("2024-01-03T11:00"))
        assert (table.period, table.gaps, table.series) == (24, 0, {"": slice(0, 60)})


def test_the_series_of_a_group_are_put_together_in_the_order_of_the_file(tmp_path):
    rows = [
        f"2024-01-{day:02},{shop},{day * 10 + i},x"
        for day in (1, 2, 4)
        for i, shop in enumerate(("south", "north"))
    ]
    file = write(tmp_path / "t.csv", rows, "day,shop,sales,note")
    table = read_table(file, group="shop")
    assert table.series == {"south": slice(0, 3), "north": slice(3, 6)}
    assert table.values[:, 0].tolist() == [10, 20, 40, 11, 21, 41]
    assert table.numbers.tolist() == [1, 3, 5, 2, 4, 6]
    assert table.ignored == ("note",)
    assert table.place(4) == f"{file}, row 4 (2024-01-02)"


@pytest.mark.parametrize(
    ("step", "period", "gaps"),
    [
        ("15m", 96, 0),
        ("7h", None, 0),
        ("1D", 7, 0),
        ("1B", 5, None),
        ("7D", 52, 0),
        ("1M", 12, None),
    ],
)
def test_the_season_follows_from_the_time_step(step, period, gaps, tmp_path):
    unit = np.timedelta64(int(step[:-1]), step[-1].replace("B", "D"))
    start = np.datetime64("2024-01-01T00:00" if step[-1] in "mh" else "2024-01")
    times = [str(start + i * unit) for i in range(40)]
    if step == "1B":  # business days
        times = [str(np.busday_offset("2024-01-01", i)) for i in range(40)]
    times = [f"{time}-01" if step == "1M" else time for time in times]
    table = read_table(
        write(tmp_path / "t.csv", [f"{time},{i}" for i, time in enumerate(times)], "t,a")
    )
    assert table.period == period
    assert gaps is None or table.gaps == gaps


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no rows"),
        ([*lines(), "x"], "line 62: expected 3 values, got 1"),
        (lines({9: f"{HOURS[8]},abc,1"}), "row 9: a is 'abc', expected a number such as 0.5"),
        (lines({9: "gestern,1,1"}), "row 9: time is 'gestern', expected a time such as"),
        (lines({9: ",1,1"}), "row 9: time is missing"),
        (lines({9: f"{HOURS[7]},1,1"}), "row 9 (2024-01-01 07:00): the time is the same as"),
        (lines({9: f"{HOURS[5]},1,1"}), "row 9 (2024-01-01 05:00): the time is earlier than"),
        ([f"{time},x,y" for time in HOURS], "has no column of numbers beside the time: time, a, b"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(rows, said, tmp_path):
    file = write(tmp_path / "t.csv", rows)
    with pytest.raises(DataError) as caught:
        read_table(file)
    assert str(caught.value).startswith(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [0, 30_000])
def test_a_file_that_is_not_utf8_is_refused_with_the_place(row, tmp_path):
    rows = ["1,a"] * 30_001
    rows[row] = "1,größe"
    path = tmp_path / "t.csv"
    path.write_bytes("\n".join(["a,b", *rows]).encode("cp1252"))
    with pytest.raises(DataError, match=rf"not UTF-8 text: byte 0xf6 at offset {8 + 4 * row} "):
        read_table(str(path))


def test_a_text_far_down_in_a_column_of_numbers_is_found(tmp_path):
    rows = [str(i) for i in range(30_000)] + ["oops"]
    with pytest.raises(DataError, match=r"row 30001: a is 'oops', expected a number"):
        read_table(write(tmp_path / "t.csv", rows, "a"))


@pytest.mark.parametrize("name", ["empty.csv", "not.parquet", "none.csv", "."])
def test_what_is_no_table_is_refused(name, tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "not.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=f"^{tmp_path}"):
        read_table(str(tmp_path / name))


def test_a_mistyped_column_is_told_what_there_is(tmp_path):
    file = write(tmp_path / "t.csv", [f"{row},word" for row in lines()], "time,a,b,c")
    with pytest.raises(ConfigError, match=r"task\.time: .* 'tim' \(did you mean 'time'\?\)"):
        read_table(file, time="tim")
    with pytest.raises(DataError, match="a holds no dates or timestamps such as"):
        read_table(file, time="a")
    table = read_table(file)
    with pytest.raises(ConfigError, match=r"column 'c' of .* holds no numbers"):
        table.check_columns(["a", "c"], "task.target")
    with pytest.raises(ConfigError, match="there are: a, b"):
        table.check_columns(["zzz"], "task.target")


@pytest.mark.parametrize(
    ("value", "said"), [("", "b is missing; task.missing=mask"), ("inf", "is inf")]
)
def test_a_missing_or_infinite_value_is_named(value, said, tmp_path):
    table = read_table(write(tmp_path / "t.csv", lines({9: f"{HOURS[8]},1,{value}"})))
    table.check_complete([0], missing=False)
    with pytest.raises(DataError, match=rf"row 9 \(2024-01-01 08:00\): .*{said}"):
        table.check_complete([0, 1], missing=False)
    if not value:
        table.check_complete([0, 1], missing=True)


def test_the_type_of_a_column_follows_from_all_its_rows(tmp_path):
    rows = [f"{i},{i}" for i in range(30_000)]
    rows[-1] = "29999,0.75"
    table = read_table(write(tmp_path / "t.csv", rows, "a,b"))
    assert table.values[-1].tolist() == [29999, 0.75]


def test_only_the_named_file_is_read(tmp_path):
    folder = tmp_path / "year=2020"
    folder.mkdir()
    write(folder / "data1.csv", ["1,2"] * 3, "a,b")
    file = write(folder / "data[1].csv", ["3,4"] * 3, "a,b")
    duckdb.sql("select 1 as a, 2 as b from range(3)").write_parquet(str(folder / "data[1].pq"))
    for name, first in ((file, 3), (str(folder / "data[1].pq"), 1)):
        table = read_table(name)
        assert table.columns == ("a", "b")
        assert table.values[:, 0].tolist() == [first] * 3


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("header", ["time{}a{}b", "a{}b"])
def test_decimal_commas_are_read_where_commas_separate_nothing(separator, header, tmp_path):
    numbers = [(i / 4, i / 8 if i > 50 else i) for i in range(60)]
    values = [[f"{a:.2f}", f"{b:g}"] for a, b in numbers]
    times = [[time] if "time" in header else [] for time in HOURS]
    for mark in ".,":
        cells = [[x.replace(".", mark) for x in row] for row in values]
        rows = [separator.join([*t, *row]) for t, row in zip(times, cells, strict=True)]
        table = read_table(write(tmp_path / "t.csv", rows, header.replace("{}", separator)))
        assert table.columns == ("a", "b")
        assert table.values.tolist() == [list(pair) for pair in numbers]


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S"])
@pytest.mark.parametrize(("separator", "mark"), [(";", ","), (",", ".")])
def test_times_with_the_day_first_are_read(form, separator, mark, tmp_path):
    times = [datetime(2023, 1, 28) + i * timedelta(days=1) for i in range(9)]
    values = [f"{i / 4:.2f}".replace(".", mark) for i in range(9)]
    rows = [f"{t.strftime(form)}{separator}{v}" for t, v in zip(times, values, strict=True)]
    table = read_table(write(tmp_path / "t.csv", rows, f"when{separator}a"))
    assert table.time is not None
    assert table.time.tolist() == times
    assert table.values[:, 0].tolist() == [i / 4 for i in range(9)]


@pytest.mark.parametrize("form", ["{a}/{b}/2010", "{a:02}-{b:02}-2010", "{a}/{b}/2010 10:00"])
def test_dates_are_refused_if_the_day_or_the_month_may_be_first(form, tmp_path):
    def table(dates):
        texts = [form.format(a=a, b=b) for a, b in dates]
        return read_table(write(tmp_path / "t.csv", [f"{t},1" for t in texts], "time,a"))

    with pytest.raises(DataError, match=r"2010.*(write dates as|expected a time such as) 2020-12"):
        table([(month, 1) for month in range(1, 13)])
    if ":" not in form:
        assert table([(day, 1) for day in range(1, 14)]).step == np.timedelta64(1, "D")
        assert table([(1, day) for day in range(1, 14)]).step == np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("first", "second", "hour", "zone"),
    [
        ("+09:00", "+09:00", 1, "UTC+09:00"),
        ("-0330", "-0330", 1, "UTC-03:30"),
        ("+02", "+02", 1, "UTC+02:00"),
        ("Z", "Z", 1, "UTC"),
        ("+01:00", "+00:00", 0, "UTC"),
    ],
)
def test_times_with_one_offset_are_local(first, second, hour, zone, tmp_path):
    rows = [f"2023-03-05 01:00:00{first},1,a", f"2023-03-05 02:00:00{second},2,b"]
    table = read_table(write(tmp_path / "t.csv", rows, "time,a,note"))
    assert table.time is not None
    assert table.offset is not None
    assert table.time[0] == np.datetime64(f"2023-03-05T{hour:02}:00")
    assert zone_name(table.offset) == zone


def test_codes_that_are_neither_dates_nor_numbers_are_texts(tmp_path):
    rows = [f"10-{i + 10}-3001-A,0{i},{i}" for i in range(9)]
    table = read_table(write(tmp_path / "t.csv", rows, "part,zip,a"))
    assert (table.columns, table.ignored) == (("a",), ("part", "zip"))
    broken = write(tmp_path / "b.csv", ["1,00", "2,n.v.", "3,5", "4,6"], "a,z")
    with pytest.raises(DataError, match=r"row 2: z is 'n\.v\.', expected a number"):
        read_table(broken)


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("a;b", ["1,5;2.5", "1,6;2.5"], r"t\.csv, row 1: a is '1,5', expected a number such as"),
        ("time,a", [f'{HOURS[0]},"1,5"'], r"t\.csv, row 1: a is '1,5', expected a number such as"),
        (
            "a;b",
            ["1,234;1", "2,345;2"],
            r"t\.csv: a has values like '1,234', which may be",
        ),
        ("a", ["1,5", "1,6"], r"t\.csv, line 2: expected one value, .* got '1,5': write decimals"),
    ],
)
def test_other_decimal_commas_are_refused(header, rows, said, tmp_path):
    with pytest.raises(DataError, match=said) as raised:
        read_table(write(tmp_path / "t.csv", rows, header))
    assert raised.value.exit_code == 3


def test_numbers_stored_as_text_are_refused(tmp_path):
    path = f"{tmp_path}/t.parquet"
    duckdb.sql("select '1_000' as a, 2.5 as b from range(5)").write_parquet(path)
    with pytest.raises(DataError, match=r"a is stored as text, expected values like 0\.5$"):
        read_table(path)


def test_a_broken_column_that_is_not_read_is_left_out(tmp_path):
    rows = [f"{row},{102 if i % 3 else 'B12'},{i % 2:02}" for i, row in enumerate(lines())]
    file = write(tmp_path / "t.csv", rows, "time,a,b,room,code")
    with pytest.raises(DataError, match="row 1: room is 'B12', expected a number"):
        read_table(file)
    table = read_table(file, read=["a"])
    assert (table.columns, table.ignored) == (("a", "b"), ("room", "code"))
    with pytest.raises(DataError, match="code is stored as text, expected values"):
        read_table(file, read=["a", "code"])


def test_numbers_with_leading_zeros_are_codes(tmp_path):
    rows = [f"{row},{9999 + i:05}" for i, row in enumerate(lines())]
    assert read_table(write(tmp_path / "t.csv", rows, "time,a,b,zip")).ignored == ("zip",)
