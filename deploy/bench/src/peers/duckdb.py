import duckdb

duckdb.sql("SET TimeZone = 'UTC'")
# It goes to where the answers go, once a query takes long.
duckdb.sql("SET enable_progress_bar = false")
duckdb.sql(f"CREATE TABLE network AS SELECT * FROM read_csv('{NETWORK}', all_varchar=true)")


def each():
    for level in LEVELS:
        duckdb.sql(f"""CREATE OR REPLACE TABLE {level}_load AS
            SELECT n.{level}, time_bucket(INTERVAL '30 minutes', r.start_utc) AS w, SUM(r.value) AS kwh
            FROM read_parquet({FILES}) r JOIN network n USING (usage_point) GROUP BY 1, 2""")


def up():
    duckdb.sql(f"""CREATE OR REPLACE TABLE transformer_load AS
        SELECT n.transformer, n.feeder, n.substation, time_bucket(INTERVAL '30 minutes', r.start_utc) AS w,
               SUM(r.value) AS kwh
        FROM read_parquet({FILES}) r JOIN network n USING (usage_point) GROUP BY ALL""")
    for level in LEVELS[1:]:
        duckdb.sql(f"""CREATE OR REPLACE TABLE {level}_load AS
            SELECT {level}, w, SUM(kwh) AS kwh FROM transformer_load GROUP BY 1, 2""")


def answers():
    up() if HOW == 'up' else each()
    found = [duckdb.sql(f"SELECT COUNT(*), SUM(kwh) FROM {level}_load").fetchone() for level in LEVELS]
    found.append(duckdb.sql("""SELECT COUNT(*), SUM(peak) FROM (SELECT feeder, date_trunc('day', w) AS d,
        MAX(kwh) AS peak FROM feeder_load GROUP BY 1, 2)""").fetchone())
    return found


report(duckdb.__version__, answers)
