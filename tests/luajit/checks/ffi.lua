-- Calls of C, numbers of 64 bits, structs, and constants that are kept beside the code.
local ffi = require("ffi")
local bit = require("bit")
ffi.cdef [[
typedef struct { double x, y; int64_t n; uint8_t tag[3]; } item;
size_t strlen(const char *);
int abs(int);
double fabs(double);
int snprintf(char *, size_t, const char *, ...);
]]
local items = ffi.new("item[?]", 1000)
for round = 1, 20 do
  for i = 0, 999 do
    local it = items[i]
    it.x = it.x + i * 0.1234567890123
    it.y = it.y - round / 3.00000000000001
    it.n = it.n * 6364136223846793005LL + 1442695040888963407LL
    it.tag[i % 3] = i + round
  end
end
local x, y, n, tags = 0, 0, 0LL, 0
for i = 0, 999 do
  x, y, n, tags = x + items[i].x, y + items[i].y, n + items[i].n, tags + items[i].tag[1]
end
print(("%.15g %.15g %s %d"):format(x, y, tostring(n), tags))

local C, sum = ffi.C, 0
for i = 1, 20000 do sum = sum + C.abs(-i) + tonumber(C.strlen("12345")) + C.fabs(-0.5) end
print(sum)

local u = 0xcbf29ce484222325ULL
for i = 1, 100000 do u = bit.bxor(u, i % 256) * 0x100000001b3ULL end
print(u, bit.tohex(u))

local buffer = ffi.new("char[64]")
for i = 1, 200 do C.snprintf(buffer, 64, "%d %.3f", ffi.cast("int", i), i / 7) end
print(ffi.string(buffer))

-- Addresses that are constants: of data, and of functions.
local cell, f = ffi.new("int64_t[1]"), C.abs
for i = 1, 10000 do cell[0] = cell[0] + f(-i) end
print(cell[0])
