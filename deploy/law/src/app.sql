CREATE SOURCE readings (
    usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), quality TEXT, source_version BIGINT
) WITH (
    topic = '{topic}', format = 'json', key = 'usage_point', identity = 'usage_point, channel, start_utc',
    version = 'source_version', segment = '{segment}', partitions = '3'
);

CREATE TABLE network (usage_point TEXT, feeder TEXT, valid_from TIMESTAMP, valid_to TIMESTAMP)
    WITH (path = 'network.csv');

-- Every aggregate, each also filtered, in tumbling windows.
CREATE VIEW everything WITH (partitions = '2') AS
    SELECT channel, TUMBLE(start_utc, INTERVAL '30 minutes') AS window,
           COUNT(*) AS n, COUNT(value) AS present, SUM(value) AS total, AVG(value) AS mean,
           MIN(value) AS least, MAX(value) AS most, VAR_POP(value) AS variance, STDDEV_SAMP(value) AS deviation,
           FIRST_VALUE(value) AS first, LAST_VALUE(value) AS last, COUNT(DISTINCT usage_point) AS meters,
           APPROX_PERCENTILE_CONT(value, 0.9) AS p90,
           SUM(value) FILTER (WHERE quality = 'actual') AS actual
    FROM readings {where} GROUP BY channel, window;

-- A join whose validity ends inside the history, in local days that have 23 hours.
CREATE VIEW feeder_daily WITH (partitions = '2') AS
    SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '1 day', 'Europe/Berlin') AS day,
           SUM(r.value * {factor}) AS kwh, COUNT(*) AS readings
    FROM readings r JOIN network n ON r.usage_point = n.usage_point
         AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
    GROUP BY n.feeder, day;

-- Months of those days, of all feeders: it follows from the view before, and is rolled up from it.
CREATE VIEW monthly WITH (partitions = '2') AS
    SELECT TUMBLE(r.start_utc, INTERVAL '1 month', 'Europe/Berlin') AS month,
           COUNT(*) AS readings, SUM(r.value * {factor}) AS kwh
    FROM readings r JOIN network n ON r.usage_point = n.usage_point
         AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
    GROUP BY month;

-- Sliding windows.
CREATE VIEW sliding WITH (partitions = '2') AS
    SELECT usage_point, HOP(start_utc, INTERVAL '30 minutes', INTERVAL '2 hours') AS window,
           SUM(value) AS total, MAX(value) AS most
    FROM readings {where} GROUP BY usage_point, window;

-- No window; one row moves between groups when its quality is corrected.
CREATE VIEW qualities WITH (partitions = '2') AS
    SELECT quality, COUNT(*) AS n, SUM(value) AS total FROM readings {where} GROUP BY quality;
