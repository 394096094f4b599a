create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into t select i, printf('%05x', i * 7919 % 65521), i / 7.0 from n;
create index tb on t(b);
select count(*), sum(a), round(avg(c), 6), min(b), max(b) from t;
select a, b from t where b like '0ab%' order by b;
select substr(b, 1, 1) as k, count(*), round(total(c), 3) from t group by k order by k;
update t set c = c * 2 where a % 3 = 0;
delete from t where a % 5 = 0;
select count(*), round(sum(c), 6) from t;
pragma integrity_check;
