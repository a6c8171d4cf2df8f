/* Model home: Home device */
/* Made by Setpoint from version 7 of the model; fetch it again rather than change it. */
#ifndef SETPOINT_MODEL_HOME_H
#define SETPOINT_MODEL_HOME_H

#include <stdbool.h>
#include <stdint.h>

#define SETPOINT_MODEL_HOME_NAME "home"
#define SETPOINT_MODEL_HOME_VERSION 7

/* default */
#define SETPOINT_MODEL_HOME_KEY_DEFAULT "default"

/* hardware (read-only) */
#define SETPOINT_MODEL_HOME_KEY_HARDWARE "hardware"
#define SETPOINT_MODEL_HOME_DEFAULT_HARDWARE "rev \"B\""

/* label: Label * / for ? ?/ people */
#define SETPOINT_MODEL_HOME_KEY_LABEL "label"
#define SETPOINT_MODEL_HOME_MAX_LENGTH_LABEL UINT32_C(40)
#define SETPOINT_MODEL_HOME_DEFAULT_LABEL ""

/* offset. Added to what is measured. (firmware 1.4.0 or newer) */
#define SETPOINT_MODEL_HOME_KEY_OFFSET "offset"
#define SETPOINT_MODEL_HOME_UNIT_OFFSET "\302\260C"
#define SETPOINT_MODEL_HOME_FIRMWARE_OFFSET "1.4.0"
#define SETPOINT_MODEL_HOME_MIN_OFFSET (-5.0)
#define SETPOINT_MODEL_HOME_MAX_OFFSET 5.5
#define SETPOINT_MODEL_HOME_DEFAULT_OFFSET (-0.5)

/* privacyMode: Privacy mode */
#define SETPOINT_MODEL_HOME_KEY_PRIVACY_MODE "privacyMode"
#define SETPOINT_MODEL_HOME_DEFAULT_PRIVACY_MODE false

/* reportInterval: Report interval */
#define SETPOINT_MODEL_HOME_KEY_REPORT_INTERVAL "reportInterval"
#define SETPOINT_MODEL_HOME_UNIT_REPORT_INTERVAL "s"
#define SETPOINT_MODEL_HOME_MIN_REPORT_INTERVAL 10
#define SETPOINT_MODEL_HOME_MAX_REPORT_INTERVAL 3600
#define SETPOINT_MODEL_HOME_DEFAULT_REPORT_INTERVAL 60

/* temperatureUnit */
#define SETPOINT_MODEL_HOME_KEY_TEMPERATURE_UNIT "temperatureUnit"
enum setpoint_model_home_temperature_unit {
    SETPOINT_MODEL_HOME_TEMPERATURE_UNIT_CELSIUS = 0,
    SETPOINT_MODEL_HOME_TEMPERATURE_UNIT_FAHRENHEIT = 1
};
#define SETPOINT_MODEL_HOME_TEXTS_TEMPERATURE_UNIT { "celsius", "fahrenheit" }
#define SETPOINT_MODEL_HOME_DEFAULT_TEMPERATURE_UNIT SETPOINT_MODEL_HOME_TEMPERATURE_UNIT_CELSIUS

/* windows */
#define SETPOINT_MODEL_HOME_KEY_WINDOWS "windows"
#define SETPOINT_MODEL_HOME_DEFAULT_WINDOWS "[\"22:00\"]"

/* All settings. */
struct setpoint_model_home_settings {
    int64_t default_;
    const char *hardware; /* UTF-8 */
    char label[161]; /* UTF-8, ends with 0 */
    double offset;
    bool privacy_mode;
    int32_t report_interval;
    enum setpoint_model_home_temperature_unit temperature_unit;
    const char *windows; /* JSON */
};
#define SETPOINT_MODEL_HOME_DEFAULTS { \
    .hardware = SETPOINT_MODEL_HOME_DEFAULT_HARDWARE, \
    .label = SETPOINT_MODEL_HOME_DEFAULT_LABEL, \
    .offset = SETPOINT_MODEL_HOME_DEFAULT_OFFSET, \
    .privacy_mode = SETPOINT_MODEL_HOME_DEFAULT_PRIVACY_MODE, \
    .report_interval = SETPOINT_MODEL_HOME_DEFAULT_REPORT_INTERVAL, \
    .temperature_unit = SETPOINT_MODEL_HOME_DEFAULT_TEMPERATURE_UNIT, \
    .windows = SETPOINT_MODEL_HOME_DEFAULT_WINDOWS, \
}

/* Telemetry door.open */
#define SETPOINT_MODEL_HOME_METRIC_DOOR_OPEN "door.open"

/* Telemetry temperature: Temperature */
#define SETPOINT_MODEL_HOME_METRIC_TEMPERATURE "temperature"
#define SETPOINT_MODEL_HOME_METRIC_UNIT_TEMPERATURE "\302\260C"

#endif /* SETPOINT_MODEL_HOME_H */
