-- Code that is thrown away while it is used, as a whole and by function.
local function work(n) local s = 0 for i = 1, n do s = s + (i % 3 == 0 and i or -1) end return s end
local function other(n) local s = 1 for i = 1, n do s = (s * 31 + i) % 65521 end return s end
local sum = 0
for round = 1, 300 do
  sum = sum + work(200) + other(200)
  if round % 3 == 0 then jit.flush() end
  if round % 5 == 0 then jit.flush(work) end
  if round % 50 == 0 then jit.off() elseif round % 50 == 10 then jit.on() end
end
jit.on()
print(sum)

-- The sizes change, so that the range has another length after the next flush.
local all = {"maxmcode=64,sizemcode=32", "sizemcode=16", "maxmcode=2048", "sizemcode=128"}
for _, sizes in ipairs(all) do
  for part in sizes:gmatch("[^,]+") do jit.opt.start(part) end
  jit.flush()
  sum = 0
  for n = 1, 60 do
    local code = "local s = 0 for i = 1, 99 do s = s + i * %d end return s"
    local f = assert(loadstring(code:format(n)))
    sum = sum + f() + f() + work(100)
  end
  print(sizes, sum)
end
