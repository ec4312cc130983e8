// node run.js ADDON saturated|latency|four|idle MS ROUNDS
"use strict";

const [addon, workload, ms, rounds] = process.argv.slice(2);
require(require("path").resolve(addon)).run(workload, Number(ms), Number(rounds));
