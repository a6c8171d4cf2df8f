mod conditions;
mod definitions;
mod sentences;
mod standings;
