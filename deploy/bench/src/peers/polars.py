import polars as pl

network = pl.read_csv(NETWORK, infer_schema=False)


def loads():
    readings = pl.scan_parquet(FILES).select('usage_point', 'start_utc', 'value')
    w = pl.col('start_utc').dt.truncate('30m').alias('w')
    kwh = pl.col('value').sum().alias('kwh')
    joined = readings.join(network.lazy(), on='usage_point')
    if HOW == 'each':
        return [joined.group_by(level, w).agg(kwh).collect(engine='streaming') for level in LEVELS]
    lowest = joined.group_by(*LEVELS, w).agg(kwh).collect(engine='streaming')
    return [lowest] + [lowest.group_by(level, 'w').agg(pl.col('kwh').sum()) for level in LEVELS[1:]]


def answers():
    levels = loads()
    peaks = levels[1].group_by('feeder', pl.col('w').dt.truncate('1d')).agg(pl.col('kwh').max())
    return [(level.height, level['kwh'].sum()) for level in (*levels, peaks)]


report(pl.__version__, answers)
