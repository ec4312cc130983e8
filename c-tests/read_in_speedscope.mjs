// Has speedscope's own importer read a profile, and prints "NAME<tab>TOTAL<tab>SELF" of each function; first,
// without a name, of the whole.
//
//   node read_in_speedscope.mjs PACKAGE PROFILE.pb.gz
//
// PACKAGE: the npm package's folder. It is a program for browsers in one file, which exports nothing: here that
// file is run without a page, up to where it would draw one, and says what its importer is. The version is
// pinned (scripts/lib.sh), because another one may be put together in another way.
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import zlib from 'node:zlib';

const [packageFolder, profile] = process.argv.slice(2);
const folder = path.join(packageFolder, 'dist', 'release');
const bundle = fs.readdirSync(folder).find((name) => /^speedscope-.*\.js$/.test(name));
const code = fs.readFileSync(path.join(folder, bundle), 'utf8');

function find(pattern, where) {
  const found = pattern.exec(where);
  if (!found) throw new Error(`this version of speedscope has no ${pattern}`);
  return found[1];
}
const importer = find(/let \w+=(\w+)\(\w+\);if\(\w+\)return console\.log\("Importing as protobuf encoded pprof file"\)/, code);
const place = code.indexOf(`function ${importer}(`);
const prepare = find(/[,\s](\w+)=\w+\(\(\)=>\{"use strict"/, code.slice(place));
const opened = `${code.slice(0, place)}globalThis.importProfile=(data)=>(${prepare}(),${importer}(data));${code.slice(place)}`;

// What the page would be: anything may be asked of it, and nothing comes of it.
const page = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => '' : page),
  set: () => true,
  has: () => true,
  apply: () => page,
  construct: () => page,
});
const world = { console: { ...console, log() {} }, TextDecoder, TextEncoder };
for (const name of ['document', 'location', 'navigator', 'localStorage']) world[name] = page;
world.window = world.self = world;
vm.createContext(world);
try {
  vm.runInContext(opened, world);
} catch {
  // It cannot draw.
}
const read = world.importProfile(zlib.gunzipSync(fs.readFileSync(profile)));
if (!read) throw new Error('speedscope does not take it for a profile of pprof');
console.log(`\t${read.getTotalWeight()}\t0`);
read.forEachFrame((frame) => console.log(`${frame.name}\t${frame.getTotalWeight()}\t${frame.getSelfWeight()}`));
