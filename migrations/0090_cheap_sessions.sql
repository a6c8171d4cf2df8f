-- What sessions that come and go cost the database, when ten thousand devices do it at once.

-- The timeline's writer joins `devices` anyway; checking the key again for each row, with a lock on it, was a third of
-- the insert. Deleting a device deletes its entries, and what was on its way then goes with its telemetry (`purges`).
alter table device_events drop constraint device_events_device_id_fkey;

-- Each connect and disconnect updates a row here: with no index on what changes, and room on the page for the new
-- version, no index is touched. The index served the start and the end of a server alone.
drop index device_presence_online;
alter table device_presence set (fillfactor = 50);
