-- The indexes of a trace. They are made when its recording ends; one that was killed has none.

CREATE INDEX mappings_by_addr ON mappings (addr);
CREATE INDEX calls_refused ON calls (ret) WHERE ret != 0;
CREATE INDEX closes ON calls (client) WHERE nr = -1;
