import os
import pyspark
from pyspark.sql import SparkSession, functions as f

cores = os.cpu_count()
spark = (SparkSession.builder.master('local[*]')
         .config('spark.driver.memory', '8g').config('spark.sql.shuffle.partitions', 2 * cores)
         .config('spark.sql.session.timeZone', 'UTC').config('spark.ui.enabled', False).getOrCreate())
spark.sparkContext.setLogLevel('ERROR')
network = spark.read.option('header', True).csv(NETWORK).cache()
network.count()
KWH = f.sum('kwh').alias('kwh')


def loads():
    readings = spark.read.parquet(*FILES).select(
        'usage_point', f.timestamp_seconds(f.floor(f.unix_timestamp('start_utc') / 1800) * 1800).alias('w'),
        f.col('value').alias('kwh'))
    joined = readings.join(f.broadcast(network), 'usage_point')
    if HOW == 'each':
        return [joined.groupBy(level, 'w').agg(KWH).cache() for level in LEVELS]
    lowest = joined.groupBy(*LEVELS, 'w').agg(KWH).cache()
    return [lowest] + [lowest.groupBy(level, 'w').agg(KWH).cache() for level in LEVELS[1:]]


def answers():
    levels = loads()
    peaks = levels[1].groupBy('feeder', f.date_trunc('day', 'w')).agg(f.max('kwh').alias('kwh'))
    found = [tuple(level.agg(f.count('*'), f.sum('kwh')).first()) for level in (*levels, peaks)]
    for level in levels:
        level.unpersist()
    return found


report(pyspark.__version__, answers, spark._jvm.java.lang.ProcessHandle.current().pid())
