-- 101 households on two real feeders: every half hour of each transformer and
-- feeder, and every day of each meter, in standard time (UTC+10 all year).
CREATE SOURCE readings (
    usage_point TEXT, channel TEXT, start_utc TIMESTAMP, duration_s BIGINT, value DECIMAL(18,6), unit TEXT,
    quality TEXT, source_quality TEXT, reason TEXT, source_version BIGINT, meter TEXT, received_at TIMESTAMP
) WITH (
    topic = 'readings', format = 'json', key = 'usage_point',
    identity = 'usage_point, channel, start_utc', version = 'source_version', segment = '16384'
);

CREATE TABLE network (
    usage_point TEXT, transformer TEXT, feeder TEXT, substation TEXT, valid_from TIMESTAMP, valid_to TIMESTAMP
) WITH (path = 'network.csv');

CREATE VIEW meter_daily AS
    SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day', 'Etc/GMT-10') AS day,
           SUM(value) AS kwh, COUNT(*) AS readings
    FROM readings
    WHERE channel = 'general_supply'
    GROUP BY usage_point, day;

CREATE VIEW transformer_load AS
    SELECT n.transformer, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window,
           SUM(r.value) AS kwh, COUNT(DISTINCT r.usage_point) AS meters
    FROM readings r JOIN network n ON r.usage_point = n.usage_point
    WHERE r.channel IN ('general_supply', 'controlled_load')
    GROUP BY n.transformer, window;

CREATE VIEW feeder_load AS
    SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window,
           SUM(r.value) AS kwh, COUNT(DISTINCT r.usage_point) AS meters
    FROM readings r JOIN network n ON r.usage_point = n.usage_point
    WHERE r.channel IN ('general_supply', 'controlled_load')
    GROUP BY n.feeder, window;

CREATE VIEW substation_load AS
    SELECT n.substation, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window,
           SUM(r.value) AS kwh, COUNT(*) AS readings
    FROM readings r JOIN network n ON r.usage_point = n.usage_point
    WHERE r.channel IN ('general_supply', 'controlled_load')
    GROUP BY n.substation, window;
