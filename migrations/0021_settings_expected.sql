-- When a version that the device hasn't answered becomes news.

-- Seconds; null for the configured default.
alter table models add column settings_expected_within integer
    constraint models_expected_within_check check (settings_expected_within between 1 and 31536000);

-- Until when an answer to this version is expected; null once it came, once a newer version took its place, and once the
-- timeline told of the delay.
alter table settings_versions add column expected_by timestamptz;
create index settings_versions_expected on settings_versions (expected_by) where expected_by is not null;
