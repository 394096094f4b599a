-- Strings, tables, closures, coroutines, integers, floats, errors and the collector.
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(fib(27))
local t = {}
for i = 1, 200000 do t[i] = (i * 7919) % 100003 end
table.sort(t)
print(t[1], t[1000], t[#t])
local words = {}
for w in (("the quick brown fox jumps over the lazy dog "):rep(200)):gmatch("%a+") do
  words[w] = (words[w] or 0) + 1
end
local keys = {}
for k in pairs(words) do keys[#keys + 1] = k end
table.sort(keys)
for _, k in ipairs(keys) do io.write(k, "=", words[k], " ") end
print()
local s = 0.0
for i = 1, 100000 do s = s + math.sin(i) / i end
print(string.format("%.12f %g %a", s, 1e300 * 1e10, 0.1))
print(math.maxinteger, math.mininteger // -1, 7 // -2, 7 % -3, -7 // 2.0, 2^53)
local co = coroutine.wrap(function() for i = 1, 5 do coroutine.yield(i * i) end return "end" end)
for _ = 1, 6 do io.write(tostring(co()), " ") end
print()
print(pcall(error, { code = 1 }) , select(2, pcall(function() return 1 + {} end)))
print(#string.rep("x", 1 << 20), ("%5.2f|%-8s|%x"):format(3.14159, "ab", 48879))
collectgarbage()
print(string.pack("<i4", -2):byte(1, -1))
print(os.time { year = 2000, month = 1, day = 1, hour = 12 } ~= nil, utf8.char(228, 8364, 128512))
